//! PCI on the machine: both ways to configuration space agree, and discovery changes nothing.

use alloc::vec::Vec;

use crate::machine::config_space::MachineConfig;
use ballonet::pci::{Bars, Bdf, BusRange, ConfigSpace, Function, Tree};
use ballonet::platform::Platform;

use crate::tests::suite::{Context, Skip, Test, kernel_test, tests};

pub(super) const TESTS: &[Test] = tests![
    ports_and_memory_show_the_same_configuration_space,
    ports_and_memory_lead_to_the_same_functions,
    sizing_bars_leaves_them_and_the_command_register_as_they_were,
    every_memory_bar_has_an_address_and_no_bar_has_that_of_another,
    writing_the_command_register_leaves_the_status_register_alone,
    a_function_that_is_not_there_reads_as_all_ones,
];

/// The PCI functions; skips the test if there are none.
fn functions(context: &Context) -> Result<Vec<Function>, Skip> {
    let functions: Vec<_> = context.tree.nodes().iter().map(|node| node.function).collect();
    if functions.is_empty() { Err(Skip::because("there is no PCI")) } else { Ok(functions) }
}

/// Configuration space through the two I/O ports only.
fn by_ports() -> Result<MachineConfig, Skip> {
    let ports = MachineConfig::new(None);
    if ports.has_ports() { Ok(ports) } else { Err(Skip::because("there are no configuration ports")) }
}

kernel_test! {
    fn ports_and_memory_show_the_same_configuration_space(context) {
        let ports = by_ports()?;
        let functions = functions(context)?;
        let config = context.machine.config();
        if config.regions().next().is_none() {
            return Err(Skip::because("configuration space is not mapped"));
        }
        for bdf in functions.iter().map(|function| function.bdf).filter(|bdf| bdf.segment() == 0) {
            for offset in (0..256).step_by(4) {
                let expected = config.read32(bdf, offset);
                assert_eq!(ports.read32(bdf, offset), expected, "{bdf} at {offset:#x}");
                for (name, config) in [("memory", &*config), ("ports", &ports)] {
                    let bytes = [0, 1, 2, 3].map(|byte| config.read8(bdf, offset + byte));
                    assert_eq!(u32::from_le_bytes(bytes), expected, "{bdf} at {offset:#x} by {name}, 8 bits each");
                    let [low, high] = [0, 2].map(|half| u32::from(config.read16(bdf, offset + half)));
                    assert_eq!(low | high << 16, expected, "{bdf} at {offset:#x} by {name}, 16 bits each");
                }
            }
        }
    }
}

kernel_test! {
    fn ports_and_memory_lead_to_the_same_functions(context) {
        let mut ports = by_ports()?;
        if context.machine.config().regions().next().is_none() {
            return Err(Skip::because("configuration space is not mapped"));
        }
        let tree = Tree::walk(&mut ports, &[BusRange::SEGMENT_0]);
        let found: Vec<_> = tree.nodes().iter().map(|node| node.function).collect();
        assert_eq!(found, functions(context)?);
    }
}

kernel_test! {
    fn sizing_bars_leaves_them_and_the_command_register_as_they_were(context) {
        let functions = functions(context)?;
        let nodes = context.tree.nodes().to_vec();
        let config = context.machine.config();
        for (function, node) in functions.iter().zip(nodes) {
            let header = |config: &MachineConfig| -> Vec<u32> {
                (0..16).map(|index| config.read32(function.bdf, 4 * index)).collect()
            };
            let before = header(config);
            let bars = Bars::size(config, function);
            assert_eq!(header(config), before, "header of {}", function.bdf);
            for bar in bars.iter() {
                let known = node.bars.get(bar.index).expect("it was there before");
                let (bdf, index) = (function.bdf, bar.index);
                assert_eq!((bar.size, bar.is_io()), (known.size, known.is_io()), "{bdf} BAR {index}");
                assert!(known.range().is_none() || bar == known, "{bdf} BAR {index}: {bar:?}, {known:?}");
            }
        }
    }
}

kernel_test! {
    fn every_memory_bar_has_an_address_and_no_bar_has_that_of_another(context) {
        let mut taken = Vec::new();
        for node in context.tree.nodes() {
            for bar in node.bars.iter() {
                let Some(range) = bar.range() else {
                    // Some machines have no I/O space.
                    assert!(bar.is_io(), "{} BAR {} has no address", node.bdf(), bar.index);
                    continue;
                };
                assert!(range.first().is_multiple_of(bar.size), "{} BAR {} at {range}", node.bdf(), bar.index);
                taken.push((bar.is_io(), range, node.bdf()));
            }
        }
        for (index, (io, range, bdf)) in taken.iter().enumerate() {
            let clash = taken[..index].iter().find(|(other_io, other, _)| io == other_io && range.overlaps(*other));
            assert!(clash.is_none(), "{bdf} at {range} overlaps {clash:?}");
        }
    }
}

kernel_test! {
    fn writing_the_command_register_leaves_the_status_register_alone(context) {
        let functions = functions(context)?;
        let config = context.machine.config();
        for function in functions {
            let (command, status) = (function.command(config), function.status(config));
            function.set_command(config, command);
            function.set_intx(config, false);
            function.set_command(config, command);
            assert_eq!((function.command(config), function.status(config)), (command, status), "{}", function.bdf);
        }
    }
}

kernel_test! {
    fn a_function_that_is_not_there_reads_as_all_ones(context) {
        functions(context)?;
        let mut places = (0..32).filter_map(|device| Bdf::new(0, 0, device, 0));
        let absent = places.find(|&bdf| context.tree.get(bdf).is_none());
        let absent = absent.ok_or_else(|| Skip::because("bus 0 is full"))?;
        const BAR_0: u16 = 0x10;
        let config = context.machine.config();
        assert_eq!(config.read32(absent, 0), u32::MAX);
        config.write32(absent, BAR_0, 0);
        assert_eq!(config.read32(absent, BAR_0), u32::MAX);
        assert!(Function::probe(config, absent).is_none());
    }
}
