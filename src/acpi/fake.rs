//! Firmware of our own making: tables with right checksums, laid out in memory.
