//! Holds SimApic to what is documented and recorded about an APIC, and shows what each switch does.

mod client;
mod events;
mod reads;
mod requests;
mod sessions;
mod switches;
mod troubles;
mod writes;
