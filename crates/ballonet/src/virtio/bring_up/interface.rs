//! Which of its interfaces a device is driven by, and how its registers are reached (virtio 1.4, 4.1.5.1.1).
//!
//! A transitional device has both. The modern one is used unless the caller asks for the legacy one.

use derive_more::{Display, Error, From};

use crate::pci::{Bar, Bars, Bdf, Command, ConfigSpace, Function};
use crate::platform::Platform;
use crate::virtio::capability::{Capabilities, CapabilityError};
use crate::virtio::transport::{Legacy, LegacyError, LegacyPorts, Modern, ModernError, Transport};
use crate::virtio::transport_kind::TransportKind;

/// An interface of a device, found but not yet touched.
#[derive(Debug, Clone, PartialEq, Eq, From)]
#[allow(clippy::large_enum_variant, reason = "one on the stack, once a bring-up")]
pub(super) enum Interface {
    /// Structures named by capabilities.
    Modern(Capabilities),
    /// Ports in the first BAR.
    Legacy(LegacyPorts),
}

/// Why a device has no usable interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Display, Error, From)]
pub enum InterfaceError {
    /// It has no virtio capabilities, and so no modern interface.
    #[display("{_0} has no modern virtio interface")]
    #[from(skip)]
    NoModern(#[error(not(source))] Bdf),
    /// It has no virtio capabilities, and its legacy interface is unusable.
    #[display("no modern virtio interface; {_0}")]
    #[from(skip)]
    Neither(LegacyError),
    /// Its structures are in unusable places.
    #[display("{_0}")]
    Capability(CapabilityError),
    /// Its structures could not be reached.
    #[display("{_0}")]
    Modern(ModernError),
    /// Its legacy interface, which was requested, is unusable.
    #[display("{_0}")]
    Legacy(LegacyError),
}

impl Interface {
    /// The interface of `function` to use: the `wanted` one, or else the modern one if there is one (4.1.5.1.1.1).
    ///
    /// # Errors
    /// When there is no such interface.
    pub(super) fn find<C: ConfigSpace>(
        config: &C,
        function: &Function,
        bars: &Bars,
        wanted: Option<TransportKind>,
    ) -> Result<Self, InterfaceError> {
        if wanted == Some(TransportKind::Legacy) {
            return Ok(Self::Legacy(LegacyPorts::find(function, bars)?));
        }
        let legacy = || LegacyPorts::find(function, bars).map(Self::Legacy);
        match (Capabilities::find(config, function, bars), wanted) {
            (Ok(Some(capabilities)), _) => Ok(Self::Modern(capabilities)),
            (Ok(None), None) => legacy().map_err(InterfaceError::Neither),
            (Ok(None), Some(_)) => Err(InterfaceError::NoModern(function.bdf)),
            // A transitional device with unusable structures still has its legacy interface.
            (Err(error), None) => legacy().map_err(|_| InterfaceError::Capability(error)),
            (Err(error), Some(_)) => Err(InterfaceError::Capability(error)),
        }
    }

    /// The transport for it.
    #[cfg(test)]
    pub(super) const fn kind(&self) -> TransportKind {
        match self {
            Self::Modern(_) => TransportKind::Modern,
            Self::Legacy(_) => TransportKind::Legacy,
        }
    }

    /// The same interface with all registers reached through configuration space, none mapped.
    ///
    /// # Errors
    /// When there is no window to them. Legacy ports have none.
    pub(super) fn through_config(self) -> Result<Self, InterfaceError> {
        match self {
            Self::Modern(capabilities) => Ok(Self::Modern(capabilities.through_config()?)),
            Self::Legacy(ports) => Err(CapabilityError::NoConfigAccess(ports.function()).into()),
        }
    }

    /// What the function, whose BARs are `bars`, must decode so that its registers and its MSI-X table can be reached.
    ///
    /// If a memory BAR has no address, memory is not decoded for the table alone: that BAR would decode another
    /// device's addresses.
    pub(super) fn decoding(&self, bars: &Bars) -> Command {
        let in_memory = bars.iter().filter(|bar| !bar.is_io());
        let all_placed = in_memory.map(Bar::range).all(|range| range.is_some());
        let table = if all_placed { Command::MEMORY } else { Command::empty() };
        match self {
            Self::Modern(capabilities) => capabilities
                .places()
                .filter_map(|place| place.window)
                .fold(table, |command, window| command | if window.io { Command::IO } else { Command::MEMORY }),
            Self::Legacy(_) => table | Command::IO,
        }
    }

    /// Maps the registers, which are decoded. Structures that cannot be mapped are reached through configuration space,
    /// if device and platform support that. Does not access the device.
    ///
    /// # Errors
    /// When registers cannot be reached; nothing is mapped then.
    pub(super) fn open<P: Platform>(self, platform: &mut P) -> Result<Transport<P::Registers>, InterfaceError> {
        Ok(match self {
            Self::Modern(capabilities) => Modern::new(platform, capabilities)?.into(),
            Self::Legacy(ports) => Legacy::new(platform, &ports)?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::{FakeConfig, FakeFunction};

    const MODERN: Option<TransportKind> = Some(TransportKind::Modern);
    const LEGACY: Option<TransportKind> = Some(TransportKind::Legacy);

    /// A virtio capability for a page of BAR 4.
    fn structure(kind: u8, offset: u32) -> Vec<u8> {
        let mut body = vec![if kind == 2 { 20 } else { 16 }, kind, 4, 0, 0, 0];
        for word in [offset, 0x1000, 4] {
            body.extend(word.to_le_bytes());
        }
        body
    }

    /// A balloon with these interfaces.
    fn function(modern: bool, legacy: bool) -> FakeFunction {
        let id = if legacy { 0x1002 } else { 0x1045 };
        let mut function = FakeFunction::new(0x1af4, id, 0x00_ff00).raw(8, 0x00ff_0000);
        if legacy {
            function = function.io(0, 0xc000, 0x40);
        }
        if modern {
            function = function.memory64(4, 0x80_0000_0000, 0x4000, true);
            for (kind, at) in [(1, 0x40), (2, 0x58), (3, 0x70), (4, 0x88)] {
                function = function.capability(at, 0x09, &structure(kind, (u32::from(kind) - 1) * 0x1000));
            }
        }
        function
    }

    fn find(function: FakeFunction, wanted: Option<TransportKind>) -> Result<Interface, InterfaceError> {
        let (mut config, bdf) = FakeConfig::with(function);
        let function = Function::probe(&config, bdf).unwrap();
        let bars = Bars::size(&mut config, &function);
        Interface::find(&config, &function, &bars, wanted)
    }

    #[test]
    fn a_transitional_device_is_driven_by_its_modern_interface_by_default() {
        for (wanted, kind) in [(None, MODERN), (MODERN, MODERN), (LEGACY, LEGACY)] {
            assert_eq!(find(function(true, true), wanted).ok().map(|interface| interface.kind()), kind, "{wanted:?}");
        }
    }

    #[test]
    fn a_device_without_virtio_capabilities_is_legacy() {
        assert_eq!(find(function(false, true), None).unwrap().kind(), TransportKind::Legacy);
        assert_eq!(find(function(false, true), LEGACY).unwrap().kind(), TransportKind::Legacy);
        assert!(matches!(find(function(false, true), MODERN), Err(InterfaceError::NoModern(_))));
    }

    #[test]
    fn a_modern_device_has_no_legacy_interface() {
        assert_eq!(find(function(true, false), None).unwrap().kind(), TransportKind::Modern);
        assert!(matches!(
            find(function(true, false), LEGACY),
            Err(InterfaceError::Legacy(LegacyError::NotLegacy { .. }))
        ));
    }

    #[test]
    fn a_device_without_any_interface_is_refused_with_the_reason() {
        assert!(matches!(find(function(false, false), None), Err(InterfaceError::Neither(_))));
        let ports_without_address = FakeFunction::new(0x1af4, 0x1002, 0).raw(8, 0x00ff_0000).io(0, 0, 0x40);
        let message = find(ports_without_address, None).unwrap_err().to_string();
        assert!(message.contains("no modern virtio interface") && message.contains("no address"), "{message}");
    }

    #[test]
    fn with_unusable_capabilities_a_transitional_device_is_driven_by_its_ports() {
        let broken = |legacy| function(false, legacy).capability(0x40, 0x09, &structure(1, 0));
        assert_eq!(find(broken(true), None).unwrap().kind(), TransportKind::Legacy);
        assert!(matches!(find(broken(true), MODERN), Err(InterfaceError::Capability(_))));
        assert!(matches!(find(broken(false), None), Err(InterfaceError::Capability(_))));
    }

    /// What a function must decode for its interface.
    fn decoded(function: FakeFunction, wanted: Option<TransportKind>) -> Command {
        let (mut config, bdf) = FakeConfig::with(function);
        let function = Function::probe(&config, bdf).unwrap();
        let bars = Bars::size(&mut config, &function);
        Interface::find(&config, &function, &bars, wanted).unwrap().decoding(&bars)
    }

    #[test]
    fn ports_are_decoded_if_registers_are_in_them() {
        assert_eq!(decoded(function(true, true), None), Command::MEMORY);
        assert_eq!(decoded(function(true, true), LEGACY), Command::MEMORY | Command::IO);
        assert_eq!(decoded(function(false, true), None), Command::MEMORY | Command::IO);
    }

    #[test]
    fn memory_is_not_decoded_for_the_msix_table_alone_if_a_bar_has_no_address() {
        let table = |address| function(true, true).memory32(1, address, 0x1000);
        assert_eq!(decoded(table(0xfe00_0000), LEGACY), Command::MEMORY | Command::IO);
        assert_eq!(decoded(table(0), LEGACY), Command::IO);
        assert_eq!(decoded(table(0), MODERN), Command::MEMORY, "the structures have to be reached");
    }

    #[test]
    fn an_interface_without_a_configuration_window_is_not_reached_through_it() {
        for wanted in [MODERN, LEGACY] {
            let error = find(function(true, true), wanted).unwrap().through_config().unwrap_err();
            assert!(matches!(error, InterfaceError::Capability(CapabilityError::NoConfigAccess(_))), "{error}");
        }
        let mut access = structure(5, 0);
        access[0] = 20;
        let reached =
            find(function(true, true).capability(0xa0, 0x09, &access), None).unwrap().through_config().unwrap();
        let Interface::Modern(capabilities) = reached else { panic!("it is modern") };
        assert!(capabilities.places().all(|place| place.window.is_none()));
    }
}
