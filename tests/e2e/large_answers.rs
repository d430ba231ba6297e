//! X3: answers of an APIC cost what is used of them, whatever their size.

use crate::world::peak;
use crate::world::{E, World};
use sim::net::{Fault, Trouble};

const TARGET: &str = "/api/mo/uni/tn-T/out-L.json";

/// An answer that holds these objects.
fn answer(objects: String) -> Trouble {
    Trouble::Answer(200, "application/json", format!(r#"{{"totalCount":"1","imdata":[{objects}]}}"#))
}

/// X3: answers of nearly 64 MiB: one of millions of objects is refused early, one of objects with much in them that is
/// not used is read. Neither takes a multiple of its size, and the daemon goes on.
#[test]
fn large_answers_take_only_the_memory_that_is_used() {
    let world = World::new();
    let daemon = world.run(&[]);
    daemon.until_logged("APIC session established");
    let (tiny, unused) =
        (r#"{"a":{}},"#, format!(r#"{{"a":{{"attributes":{{"x":"{}","y":{{"z":[1,2,3]}}}}}}}},"#, "x".repeat(1000)));
    let tiny = tiny.repeat((63 << 20) / tiny.len());
    // Until it is read: a busy machine may not bring it within the time of a request.
    world.apic.fault(Fault::on(TARGET, answer(tiny.trim_end_matches(',').to_owned())));
    world.kube.deploy("a", "web", Some(E), &["10.0.0.1"]);
    daemon.until_logged("more than 200000 objects in one answer");
    world.apic.clear_faults();
    world.until_holds("E", &["10.0.0.1"]);
    let peaks = [peak(daemon.id())];

    let unused = unused.repeat((63 << 20) / unused.len());
    world.apic.fault(Fault::on(TARGET, answer(unused.trim_end_matches(',').to_owned())));
    world.apic.drop_websockets();
    daemon.until_logged_times("APIC session established", 2);
    daemon.until_logged("no valid subscription id");
    world.apic.clear_faults();
    world.kube.pod("a", "web", "1", &["10.0.0.2"]);
    world.until_holds("E", &["10.0.0.1", "10.0.0.2"]);
    let peaks = [peaks[0], peak(daemon.id())];
    assert!(peaks.iter().all(|it| *it < 300_000), "{peaks:?} kB at most");
}
