//! The lab: SimApic and SimKube as one process.
fn main() {}
