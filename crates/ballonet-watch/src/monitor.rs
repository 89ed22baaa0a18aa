//! The way to a QEMU: its QMP socket, or libvirt where the socket is one that libvirt's daemon holds.

use std::path::Path;

use serde_json::Value;

use crate::failure::Outcome;
use crate::libvirt::Domain;
use crate::qmp::{Qmp, QmpError};

/// A connection.
pub(crate) enum Monitor {
    /// To the socket.
    Socket(Qmp),
    /// Through libvirt.
    Libvirt(Domain),
}

impl Monitor {
    /// Connects to the QEMU whose socket this is. Errors name the socket.
    pub(crate) fn connect(socket: &Path) -> Outcome<Self> {
        match Domain::running(socket) {
            Some(domain) => Ok(Self::Libvirt(domain)),
            None => Qmp::connect(socket).map(Self::Socket),
        }
    }

    /// PID of the process that made the socket, if that may be QEMU.
    pub(crate) fn peer(&self) -> Option<u32> {
        match self {
            Self::Socket(qmp) => qmp.peer(),
            Self::Libvirt(_) => None,
        }
    }

    /// Whether the last command had no answer in time.
    pub(crate) const fn is_silent(&self) -> bool {
        match self {
            Self::Socket(qmp) => qmp.is_silent(),
            Self::Libvirt(domain) => domain.is_silent(),
        }
    }

    /// Runs a command; the wait is bounded.
    pub(crate) fn run(&mut self, name: &str, arguments: &Value) -> Result<Value, QmpError> {
        match self {
            Self::Socket(qmp) => qmp.run(name, arguments),
            Self::Libvirt(domain) => domain.run(name, arguments),
        }
    }

    /// QEMU's events since the last call; libvirt keeps them to itself.
    pub(crate) fn take_events(&mut self) -> Vec<Value> {
        match self {
            Self::Socket(qmp) => qmp.take_events(),
            Self::Libvirt(_) => Vec::new(),
        }
    }
}
