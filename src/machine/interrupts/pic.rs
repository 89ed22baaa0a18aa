//! The two 8259 interrupt controllers: moved out of the way of the exceptions and masked permanently.

use x86_64::instructions::port::{Port, PortWriteOnly};

use crate::machine::interrupts::vectors;

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xA0;

/// ICW1: initialisation with ICW4, edge-triggered, cascaded.
const ICW1: u8 = 0x11;
/// ICW3 of the master: a slave on input 2.
const SLAVE_INPUT: u8 = 1 << 2;
/// ICW3 of the slave: its number.
const SLAVE_NUMBER: u8 = 2;
/// ICW4: 8086 mode.
const ICW4: u8 = 0x01;

/// Masks every input. The vectors are moved first, since a masked PIC still raises spurious interrupts.
pub(crate) fn mask_all() {
    for (base, vector, cascade) in [(MASTER, vectors::PIC, SLAVE_INPUT), (SLAVE, vectors::PIC + 8, SLAVE_NUMBER)] {
        let mut command = PortWriteOnly::<u8>::new(base);
        let mut data = Port::<u8>::new(base + 1);
        // SAFETY: these ports are the PICs on every PC, and nothing where there are none; masked, they raise only
        // their spurious vectors, which have gates.
        unsafe {
            command.write(ICW1);
            data.write(vector);
            data.write(cascade);
            data.write(ICW4);
            data.write(0xFF);
        }
    }
}
