//! The PCI Express capability: the type of port, the slot behind it, and its link (PCIe 5.0, 7.5.3).

use bitflags::bitflags;

use super::capability::{Capability, CapabilityError, id};
use super::{Bdf, ConfigSpace, Function};

/// PCI Express capabilities register, 16 bits; offset in the capability.
#[doc(alias = "PCI_EXP_FLAGS")]
const FLAGS: usize = 0x02;
/// Link capabilities, 32 bits.
#[doc(alias = "PCI_EXP_LNKCAP")]
const LINK_CAPABILITIES: usize = 0x0C;
/// Link status, 16 bits.
#[doc(alias = "PCI_EXP_LNKSTA")]
const LINK_STATUS: usize = 0x12;
/// Slot capabilities, 32 bits.
#[doc(alias = "PCI_EXP_SLTCAP")]
const SLOT_CAPABILITIES: usize = 0x14;
/// Slot control, 16 bits.
#[doc(alias = "PCI_EXP_SLTCTL")]
const SLOT_CONTROL: usize = 0x18;
/// Slot status, 16 bits.
#[doc(alias = "PCI_EXP_SLTSTA")]
const SLOT_STATUS: usize = 0x1A;

/// PCI Express capabilities register: there is a slot behind the port.
#[doc(alias = "PCI_EXP_FLAGS_SLOT")]
const FLAGS_SLOT: u16 = 1 << 8;
/// Link capabilities: link status reports whether the data link layer is active.
#[doc(alias = "PCI_EXP_LNKCAP_DLLLARC")]
const LINK_ACTIVE_REPORTING: u32 = 1 << 20;
/// Link status: the data link layer is active.
#[doc(alias = "PCI_EXP_LNKSTA_DLLLA")]
const LINK_ACTIVE: u16 = 1 << 13;

/// Device/port type (7.5.3.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PortType {
    /// A root port: the downstream end of a link out of the root complex.
    #[doc(alias = "PCI_EXP_TYPE_ROOT_PORT")]
    RootPort,
    /// A downstream port of a switch.
    #[doc(alias = "PCI_EXP_TYPE_DOWNSTREAM")]
    DownstreamPort,
    /// Anything without a link below it, by its number.
    Other(u8),
}

impl PortType {
    /// From the PCI Express capabilities register.
    const fn from_register(flags: u16) -> Self {
        match flags >> 4 & 0xF {
            0x4 => Self::RootPort,
            0x6 => Self::DownstreamPort,
            other => Self::Other(other as u8),
        }
    }

    /// Whether there is a link below it, with one device at the other end.
    pub(crate) const fn is_downstream(self) -> bool {
        matches!(self, Self::RootPort | Self::DownstreamPort)
    }
}

bitflags! {
    /// Slot capabilities (7.5.3.9), without the slot's number and power limit.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(crate) struct SlotCapabilities: u32 {
        /// There is an attention button.
        #[doc(alias = "PCI_EXP_SLTCAP_ABP")]
        const ATTENTION_BUTTON = 1 << 0;
        /// Power can be switched.
        #[doc(alias = "PCI_EXP_SLTCAP_PCP")]
        const POWER_CONTROLLER = 1 << 1;
        /// There is a latch that holds the card, with a sensor.
        #[doc(alias = "PCI_EXP_SLTCAP_MRLSP")]
        const LATCH_SENSOR = 1 << 2;
        /// There is an attention indicator.
        #[doc(alias = "PCI_EXP_SLTCAP_AIP")]
        const ATTENTION_INDICATOR = 1 << 3;
        /// There is a power indicator.
        #[doc(alias = "PCI_EXP_SLTCAP_PIP")]
        const POWER_INDICATOR = 1 << 4;
        /// The card may be removed without notice.
        #[doc(alias = "PCI_EXP_SLTCAP_HPS")]
        const SURPRISE = 1 << 5;
        /// Hot-plug is supported.
        #[doc(alias = "PCI_EXP_SLTCAP_HPC")]
        const HOT_PLUG = 1 << 6;
        /// There is an electromechanical interlock.
        #[doc(alias = "PCI_EXP_SLTCAP_EIP")]
        const INTERLOCK = 1 << 17;
        /// Commands take effect at once, and their completion is not reported.
        #[doc(alias = "PCI_EXP_SLTCAP_NCCS")]
        const NO_COMMAND_COMPLETED = 1 << 18;
        // Power limit and slot number.
        const _ = !0;
    }

    /// Slot control (7.5.3.10). The two indicators take two bits each: see [`Indicator`].
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(crate) struct SlotControl: u16 {
        /// Interrupt when the attention button is pressed.
        #[doc(alias = "PCI_EXP_SLTCTL_ABPE")]
        const ATTENTION_BUTTON = 1 << 0;
        /// Interrupt on a power fault.
        #[doc(alias = "PCI_EXP_SLTCTL_PFDE")]
        const POWER_FAULT = 1 << 1;
        /// Interrupt when the latch moves.
        #[doc(alias = "PCI_EXP_SLTCTL_MRLSCE")]
        const LATCH = 1 << 2;
        /// Interrupt when a card appears or disappears.
        #[doc(alias = "PCI_EXP_SLTCTL_PDCE")]
        const PRESENCE = 1 << 3;
        /// Interrupt when a command is complete.
        #[doc(alias = "PCI_EXP_SLTCTL_CCIE")]
        const COMMAND_COMPLETED = 1 << 4;
        /// Master enable of these interrupts.
        #[doc(alias = "PCI_EXP_SLTCTL_HPIE")]
        const INTERRUPT = 1 << 5;
        /// The attention indicator.
        #[doc(alias = "PCI_EXP_SLTCTL_AIC")]
        const ATTENTION_INDICATOR = 3 << 6;
        /// The power indicator.
        #[doc(alias = "PCI_EXP_SLTCTL_PIC")]
        const POWER_INDICATOR = 3 << 8;
        /// Power is off.
        #[doc(alias = "PCI_EXP_SLTCTL_PCC")]
        const POWER_OFF = 1 << 10;
        /// Writing 1 toggles the electromechanical interlock; reads as 0.
        #[doc(alias = "PCI_EXP_SLTCTL_EIC")]
        const INTERLOCK = 1 << 11;
        /// Interrupt when the link comes up or goes down.
        #[doc(alias = "PCI_EXP_SLTCTL_DLLSCE")]
        const LINK = 1 << 12;
        // Unnamed bits are preserved.
        const _ = !0;
    }

    /// Slot status (7.5.3.11). Writing a one clears the bits of [`SlotStatus::EVENTS`]; the rest are read-only.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub(crate) struct SlotStatus: u16 {
        /// The attention button was pressed.
        #[doc(alias = "PCI_EXP_SLTSTA_ABP")]
        const ATTENTION_BUTTON = 1 << 0;
        /// There was a power fault.
        #[doc(alias = "PCI_EXP_SLTSTA_PFD")]
        const POWER_FAULT = 1 << 1;
        /// The latch has moved.
        #[doc(alias = "PCI_EXP_SLTSTA_MRLSC")]
        const LATCH_MOVED = 1 << 2;
        /// A card has appeared or disappeared.
        #[doc(alias = "PCI_EXP_SLTSTA_PDC")]
        const PRESENCE_CHANGED = 1 << 3;
        /// A command is complete.
        #[doc(alias = "PCI_EXP_SLTSTA_CC")]
        const COMMAND_COMPLETED = 1 << 4;
        /// The latch is open.
        #[doc(alias = "PCI_EXP_SLTSTA_MRLSS")]
        const LATCH_OPEN = 1 << 5;
        /// There is a card in the slot.
        #[doc(alias = "PCI_EXP_SLTSTA_PDS")]
        const PRESENT = 1 << 6;
        /// The electromechanical interlock is engaged.
        #[doc(alias = "PCI_EXP_SLTSTA_EIS")]
        const INTERLOCKED = 1 << 7;
        /// The link has come up or gone down.
        #[doc(alias = "PCI_EXP_SLTSTA_DLLSC")]
        const LINK_CHANGED = 1 << 8;
        // Reserved bits.
        const _ = !0;
    }
}

impl SlotStatus {
    /// The event bits, which a written 1 clears.
    pub(crate) const EVENTS: Self = Self::ATTENTION_BUTTON
        .union(Self::POWER_FAULT)
        .union(Self::LATCH_MOVED)
        .union(Self::PRESENCE_CHANGED)
        .union(Self::COMMAND_COMPLETED)
        .union(Self::LINK_CHANGED);
}

impl SlotCapabilities {
    /// The number that is written on the slot: 0 to 8191.
    #[doc(alias = "PCI_EXP_SLTCAP_PSN")]
    pub(crate) const fn number(self) -> u16 {
        (self.bits() >> 19) as u16
    }
}

/// What an indicator shows (7.5.3.10).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Indicator {
    /// Lit.
    On,
    /// Blinking.
    Blink,
    /// Dark.
    Off,
}

impl Indicator {
    /// Its two bits.
    const fn bits(self) -> u16 {
        match self {
            Self::On => 1,
            Self::Blink => 2,
            Self::Off => 3,
        }
    }
}

impl SlotControl {
    /// With the attention indicator set.
    pub(crate) const fn with_attention(self, indicator: Indicator) -> Self {
        self.difference(Self::ATTENTION_INDICATOR).union(Self::from_bits_retain(indicator.bits() << 6))
    }

    /// With the power indicator set.
    pub(crate) const fn with_power(self, indicator: Indicator) -> Self {
        self.difference(Self::POWER_INDICATOR).union(Self::from_bits_retain(indicator.bits() << 8))
    }
}

/// The PCI Express capability of a function. All of its first 28 bytes are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Express {
    function: Bdf,
    offset: u16,
    flags: u16,
}

impl Express {
    /// The capability of `function`, or `None` if it has none.
    ///
    /// # Errors
    /// When the capability list is broken, or leaves no room for the capability.
    pub(crate) fn find<C: ConfigSpace>(config: &C, function: &Function) -> Result<Option<Self>, CapabilityError> {
        let Some(capability) = function.capability(config, id::PCI_EXPRESS)? else { return Ok(None) };
        Self::read(config, &capability).map(Some)
    }

    fn read<C: ConfigSpace>(config: &C, capability: &Capability) -> Result<Self, CapabilityError> {
        let flags = capability.read16(config, FLAGS)?;
        // This is the last register used here, so all of them exist.
        capability.read16(config, SLOT_STATUS)?;
        Ok(Self { function: capability.function, offset: capability.offset, flags })
    }

    /// The function that has it.
    pub(crate) const fn function(&self) -> Bdf {
        self.function
    }

    /// The type of the port.
    pub(crate) const fn port_type(&self) -> PortType {
        PortType::from_register(self.flags)
    }

    /// Whether there is a slot behind the port.
    pub(crate) const fn has_slot(&self) -> bool {
        self.port_type().is_downstream() && self.flags & FLAGS_SLOT != 0
    }

    /// The message that reports slot events: an MSI-X entry, or an offset added to the data of an MSI.
    #[doc(alias = "PCI_EXP_FLAGS_IRQ")]
    pub(crate) const fn message_number(&self) -> u16 {
        self.flags >> 9 & 0x1F
    }

    /// Offset of the slot status in configuration space.
    pub(crate) const fn slot_status_offset(&self) -> u16 {
        self.offset + SLOT_STATUS as u16
    }

    /// Reads the slot capabilities.
    pub(crate) fn slot_capabilities<C: ConfigSpace>(&self, config: &C) -> SlotCapabilities {
        SlotCapabilities::from_bits_retain(config.read32(self.function, self.offset + SLOT_CAPABILITIES as u16))
    }

    /// Reads the slot control.
    pub(crate) fn slot_control<C: ConfigSpace>(&self, config: &C) -> SlotControl {
        SlotControl::from_bits_retain(config.read16(self.function, self.offset + SLOT_CONTROL as u16))
    }

    /// Writes the slot control as 16 bits: the slot status in the upper half of the dword would lose its events if they
    /// were written back. The interlock stays as it is.
    pub(crate) fn set_slot_control<C: ConfigSpace>(&self, config: &mut C, control: SlotControl) {
        let control = control.difference(SlotControl::INTERLOCK);
        config.write16(self.function, self.offset + SLOT_CONTROL as u16, control.bits());
    }

    /// Reads the slot status.
    pub(crate) fn slot_status<C: ConfigSpace>(&self, config: &C) -> SlotStatus {
        SlotStatus::from_bits_retain(config.read16(self.function, self.slot_status_offset()))
    }

    /// Clears exactly `events`: a later one stays set.
    pub(crate) fn clear_events<C: ConfigSpace>(&self, config: &mut C, events: SlotStatus) {
        config.write16(self.function, self.slot_status_offset(), events.intersection(SlotStatus::EVENTS).bits());
    }

    /// Whether the port reports its link state.
    pub(crate) fn reports_link<C: ConfigSpace>(&self, config: &C) -> bool {
        config.read32(self.function, self.offset + LINK_CAPABILITIES as u16) & LINK_ACTIVE_REPORTING != 0
    }

    /// Whether the link is up; valid only if the port [reports](Self::reports_link) it.
    pub(crate) fn is_link_up<C: ConfigSpace>(&self, config: &C) -> bool {
        config.read16(self.function, self.offset + LINK_STATUS as u16) & LINK_ACTIVE != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pci::fake::{FakeConfig, FakeFunction};

    fn express(flags: [u8; 2]) -> Express {
        let (config, bdf) = FakeConfig::with(FakeFunction::bridge(0x1B36, 0x000C).capability(0x40, 0x10, &flags));
        Express::find(&config, &Function::probe(&config, bdf).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn a_slot_is_behind_a_root_or_downstream_port_that_says_so() {
        assert!(express([0x42, 0x01]).has_slot());
        assert!(express([0x62, 0x01]).has_slot());
        assert!(!express([0x42, 0x00]).has_slot());
        // An upstream port has no slot, whatever it claims.
        assert!(!express([0x52, 0x01]).has_slot());
        assert_eq!(express([0x42, 0x00]).port_type(), PortType::RootPort);
        assert_eq!(express([0x02, 0x3E]).message_number(), 0x1F);
    }

    #[test]
    fn events_are_cleared_alone_and_the_interlock_is_never_toggled() {
        let port = FakeFunction::bridge(0x1B36, 0x000C).capability(0x40, 0x10, &[0x42, 0x01]);
        let port = port.writable(0x58, 0x0000_FFFF).clears_by_one(0x5A, 0x011F).raw(0x58, 0x0109_0000);
        let (mut config, bdf) = FakeConfig::with(port);
        let express = Express::find(&config, &Function::probe(&config, bdf).unwrap()).unwrap().unwrap();
        express.set_slot_control(&mut config, SlotControl::all());
        assert_eq!(express.slot_control(&config), SlotControl::all() - SlotControl::INTERLOCK);
        assert_eq!(express.slot_status(&config).bits(), 0x0109, "writing control clears no event");
        express.clear_events(&mut config, SlotStatus::PRESENCE_CHANGED | SlotStatus::PRESENT);
        assert_eq!(express.slot_status(&config), SlotStatus::ATTENTION_BUTTON | SlotStatus::LINK_CHANGED);
    }

    #[test]
    fn a_capability_cut_off_by_the_end_of_configuration_space_is_named() {
        let (config, bdf) =
            FakeConfig::with(FakeFunction::bridge(0x1B36, 0x000C).capability(0xE8, 0x10, &[0x42, 0x01]));
        let error = Express::find(&config, &Function::probe(&config, bdf).unwrap()).unwrap_err();
        assert!(matches!(error, CapabilityError::Truncated { offset: 0xE8, at: 0x1A, .. }), "{error}");
    }

    #[test]
    fn indicators_take_two_bits() {
        let control = SlotControl::all().with_power(Indicator::Blink).with_attention(Indicator::On);
        assert_eq!(control.bits() >> 6 & 0xF, 0b10_01);
        assert_eq!(SlotControl::empty().with_power(Indicator::Off).bits(), 0x0300);
    }
}
