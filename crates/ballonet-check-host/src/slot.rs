//! A hot-plug slot for the device under test, in QEMU's words.
//!
//! Only the checks of hot-plug get it, in a start of their own: behind a port QEMU's device has other capabilities and no
//! legacy interface, and the other checks are to judge the device as it usually is. QEMU takes one balloon only, so the
//! device that is unplugged must be the one that is tested.

/// The port. Without the first two words ACPI does the hot-plug, by methods that the guest would have to interpret.
const PORT: [&str; 4] = [
    "-global",
    "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
    "-device",
    "pcie-root-port,id=ballonet-port,chassis=250,slot=250",
];
/// The device's id, unless it has one.
const ID: &str = "ballonet-device";

/// The device as a card in that slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    /// QEMU's `-device`.
    pub(crate) device: String,
    pub(crate) id: String,
}

impl Card {
    /// A device of QEMU as a card; `None` if it is not on PCI, has a place already, or is not in `key=value` form.
    pub(crate) fn new(device: &str) -> Option<Self> {
        let mut words = device.split(',');
        let on_pci = words.next().is_some_and(|driver| driver.contains("-pci"));
        let value = |key: &str| words.clone().find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        if !on_pci || ["bus", "addr", "multifunction"].into_iter().any(|key| value(key).is_some()) {
            return None;
        }
        let named = value("id").map(str::to_owned);
        let device = format!("{device},bus=ballonet-port");
        Some(match named {
            Some(id) => Self { device, id },
            None => Self { device: format!("{device},id={ID}"), id: ID.to_owned() },
        })
    }

    /// A command of QEMU whose `-device` this is, with the port before it.
    pub(crate) fn behind_port(mut words: Vec<String>) -> Vec<String> {
        words.splice(1..1, PORT.map(str::to_owned));
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_becomes_a_card_unless_it_has_a_place() {
        let card = |device: &str, id: &str| Some(Card { device: device.into(), id: id.into() });
        assert_eq!(Card::new("virtio-rng-pci"), card("virtio-rng-pci,bus=ballonet-port,id=ballonet-device", ID));
        let named = "virtio-balloon-pci,id=b,packed=on";
        assert_eq!(Card::new(named), card("virtio-balloon-pci,id=b,packed=on,bus=ballonet-port", "b"));
        for placed in ["virtio-balloon-pci,bus=port1", "virtio-balloon-pci,addr=5", "virtio-balloon-device", "{}", ""] {
            assert_eq!(Card::new(placed), None, "{placed}");
        }
    }
}
