//! A device model before the tester.

use ballonet::pci::Bdf;
use ballonet_check::{
    Check, HostAction, MemoryEnds, Observer, Outcome, Patience, Selection, Severity, Subject, Summary, identify, run,
};
use ballonet_models::{Allocated, Balloon, Behaviour, Bus, Capability, Machine, ModelPlatform, feature};

/// RAM of the machine, in MiB.
pub const RAM: u32 = 64;
/// Where it ends.
pub const ENDS: MemoryEnds = MemoryEnds { low: (RAM as u64) << 20, high: (RAM as u64) << 20 };
/// The model's time is its own, and it is never busy with anything else.
pub const PATIENCE: Patience = Patience { stall: 3_000_000, quiet: 300_000, sleep: None };

/// The result of a run.
pub struct Report {
    /// Each check's name and outcome.
    pub outcomes: Vec<(&'static str, Severity, Outcome)>,
    pub summary: Summary,
}

/// What a host does to a balloon when a check makes a request; it then sets a target of this many pages.
pub type Act = fn(&mut Balloon, &mut Bus, HostAction, u32);

/// A host that serves all requests. The model does not notice pauses.
pub fn obedient(balloon: &mut Balloon, bus: &mut Bus, action: HostAction, pages: u32) {
    if action == HostAction::Statistics {
        balloon.request_statistics(bus);
    }
    balloon.set_target(pages, bus);
}

/// A host that plugs: what it does to the machine when a check makes a request. The behaviour is that of the device
/// from the start.
pub type PlugAct = fn(&Machine, Bdf, HostAction, Behaviour);

/// Who does what checks ask the host for.
#[derive(Clone, Copy)]
enum Host<'f> {
    Nobody,
    Acts(Act),
    Plugs(PlugAct, &'f Behaviour),
}

/// Collects outcomes, and is the host.
struct Follower<'f> {
    machine: &'f Machine,
    at: Bdf,
    host: Host<'f>,
    outcomes: Vec<(&'static str, Severity, Outcome)>,
}

impl Observer for &mut Follower<'_> {
    fn ended(&mut self, check: &Check, outcome: &Outcome) {
        self.outcomes.push((check.name, check.severity, outcome.clone()));
    }

    fn ask_host(&mut self, action: HostAction, target: Option<u64>) -> bool {
        match (self.host, target) {
            (Host::Acts(act), Some(target)) => {
                let pages = u32::try_from(target / 4096).unwrap();
                self.machine.balloon(self.at, |balloon, bus| act(balloon, bus, action, pages));
            }
            (Host::Plugs(act, behaviour), None) => act(self.machine, self.at, action, behaviour.clone()),
            _ => return false,
        }
        true
    }
}

/// A device with everything that the tester can use: every feature that the models know.
pub fn sound() -> Behaviour {
    let conforming = Behaviour::conforming();
    let more = feature::PAGE_POISON
        | feature::PAGE_REPORTING
        | feature::RING_PACKED
        | feature::RING_RESET
        | feature::NOTIFICATION_DATA
        | feature::NOTIF_CONFIG_DATA
        | feature::IN_ORDER;
    let features = conforming.features | more;
    Behaviour { features, ..with_access(conforming) }
}

/// The same device with the window in configuration space that every virtio device has.
pub fn with_access(mut behaviour: Behaviour) -> Behaviour {
    let mut window = vec![0; 20];
    (window[0], window[2], window[3]) = (0x09, 20, 5);
    behaviour.layout.capabilities.push(Capability::Raw(window));
    behaviour
}

/// The names of the checks of `list` that a device fails which meets a tester with this patience.
pub fn failed_with(patience: Patience, behaviour: Behaviour, list: &str) -> Vec<&'static str> {
    let (machine, at) = Machine::with_balloon(RAM, behaviour);
    let selection = Selection::parse(list, |unknown| panic!("no check is named {unknown}"));
    let mut failed = Vec::new();
    let note = |check: &Check, outcome: &Outcome| failed.extend(outcome.failure().map(|_| check.name));
    run(&mut ModelPlatform::new(&machine), machine.handle(at), &selection, patience, note);
    failed
}

/// Runs the checks of `list` on a device; it may be disturbed by `prepare` before. The host does what checks ask for,
/// unless it moves the target by itself.
pub fn test(behaviour: Behaviour, list: &str, prepare: impl FnOnce(&Machine)) -> Report {
    let host = if behaviour.moves.is_none() { Some(obedient as Act) } else { None };
    test_with(host, behaviour, list, prepare)
}

/// The same with this host.
pub fn test_with(host: Option<Act>, behaviour: Behaviour, list: &str, prepare: impl FnOnce(&Machine)) -> Report {
    let (machine, at) = Machine::with_balloon(RAM, behaviour);
    prepare(&machine);
    run_all(&machine, Subject::from(machine.handle(at)), at, host.map_or(Host::Nobody, Host::Acts), list)
}

/// Runs the checks of `list` on a device in a hot-plug slot.
pub fn test_in_slot(host: PlugAct, behaviour: &Behaviour, list: &str) -> Report {
    let (machine, at, port) = Machine::with_slot(RAM, behaviour.clone());
    let subject = Subject { port: Some(port), ..Subject::from(machine.handle(at)) };
    run_all(&machine, subject, at, Host::Plugs(host, behaviour), list)
}

fn run_all(machine: &Machine, subject: Subject, at: Bdf, host: Host<'_>, list: &str) -> Report {
    let mut platform = ModelPlatform::new(machine);
    let selection = Selection::parse(list, |unknown| panic!("no check is named {unknown}"));
    let mut follower = Follower { machine, at, host, outcomes: Vec::new() };
    let subject = Subject { memory: Some(ENDS), ..subject };
    let expected = identify(&mut platform, &subject).map_or(0, |identity| selection.checks_for(&identity).count());
    let summary = run(&mut platform, subject, &selection, PATIENCE, &mut follower);
    let outcomes = follower.outcomes;
    assert_eq!(outcomes.len(), expected, "each check is reported once");
    let ended = summary.ended.is_some();
    let allocated = machine.allocated();
    assert!(ended || allocated == Allocated::default(), "after the run {allocated:?} is allocated");
    Report { outcomes, summary }
}

/// All checks, but for the one that takes long.
pub const QUICK: &str = "-ring-indices-wrap";

impl Report {
    /// The names of the checks that the device failed, with what it did.
    pub fn failed(&self) -> Vec<(&'static str, &'static str)> {
        let detail = |(name, _, outcome): &'_ (&'static str, Severity, Outcome)| {
            outcome.failure().map(|detail| (*name, detail.to_owned()))
        };
        self.outcomes.iter().filter_map(detail).map(|(name, detail)| (name, &*detail.leak())).collect()
    }

    /// Checks of this severity that failed.
    pub fn failed_of(&self, severity: Severity) -> Vec<&'static str> {
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
        self.outcomes.iter().filter(|(_, s, o)| *s == severity && failed(o)).map(|(name, ..)| *name).collect()
    }

    /// Checks that were skipped.
    pub fn skipped(&self) -> Vec<&'static str> {
        let skipped = |outcome: &Outcome| matches!(outcome, Outcome::Skipped(_));
        self.outcomes.iter().filter(|(.., outcome)| skipped(outcome)).map(|(name, ..)| *name).collect()
    }
}
