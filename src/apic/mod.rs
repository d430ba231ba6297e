//! The APIC side: login, REST, websocket and subscriptions. No rules of the contract live here.
