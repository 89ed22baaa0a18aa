//! acpi.
