//! Guests to attach to: sockets, and folders of sockets.

use std::fs;
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use crate::failure::{Context as _, Outcome};
use crate::guest::Address;
use crate::libvirt::of_folder;

/// The guests at these paths. A folder stands for every socket in it and below, as libvirt lays them out. `pids` and
/// `serials` match the sockets by order, so they need sockets named one by one.
pub(crate) fn addresses(paths: &[PathBuf], pids: &[u32], serials: &[PathBuf]) -> Outcome<Vec<Address>> {
    let mut sockets = Vec::new();
    for path in paths {
        if path.is_dir() {
            sockets.extend(sockets_in(path)?);
        } else {
            sockets.push(path.clone());
        }
    }
    let has_folder = paths.iter().any(|path| path.is_dir());
    for (option, count) in [("--pid", pids.len()), ("--serial", serials.len())] {
        if count > 0 && has_folder {
            return Err(format!("{option}: works with sockets named one by one, not with a folder").into());
        }
        if count > sockets.len() {
            return Err(format!("{option}: given {count} times for {} socket(s)", sockets.len()).into());
        }
    }
    let names = names(&sockets);
    let one = |(number, (socket, name)): (usize, (PathBuf, String))| Address {
        name,
        socket,
        pid: pids.get(number).copied(),
        serial: serials.get(number).cloned(),
    };
    Ok(sockets.into_iter().zip(names).enumerate().map(one).collect())
}

fn sockets_in(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = sockets_of(folder)?;
    for entry in fs::read_dir(folder).of(folder.display())?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            // An unreadable folder belongs to another user.
            found.extend(sockets_of(&entry.path()).unwrap_or_default());
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(format!("{}: no socket in this folder", folder.display()).into());
    }
    Ok(found)
}

fn sockets_of(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).of(folder.display())?.flatten();
    let is_socket = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_socket());
    // libvirt keeps the guest agent's socket beside the monitor's.
    let is_agent = |entry: &fs::DirEntry| entry.file_name().to_string_lossy().contains("agent");
    Ok(entries.filter(|entry| is_socket(entry) && !is_agent(entry)).map(|entry| entry.path()).collect())
}

/// A unique name for each socket: the file's, or the folder's where all files are named `monitor.sock`.
fn names(sockets: &[PathBuf]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for socket in sockets {
        let base = base_name(socket);
        let mut name = base.clone();
        let mut number = 2;
        while names.contains(&name) {
            name = format!("{base}-{number}");
            number += 1;
        }
        names.push(name);
    }
    names
}

fn base_name(socket: &Path) -> String {
    let stem = socket.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = socket.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
    let domain = of_folder(&folder).map(|(_, name)| name.to_owned());
    match (stem.as_str(), domain) {
        ("monitor" | "qmp", Some(domain)) => domain,
        ("monitor" | "qmp", None) if !folder.is_empty() => folder,
        _ => stem,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("ballonet-watch-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn sockets_are_called_by_file_or_domain() {
        let sockets = ["/run/a.sock", "/tmp/a.sock", "/var/lib/libvirt/qemu/domain-3-web-1/monitor.sock", "/x/two/qmp"];
        assert_eq!(names(&sockets.map(PathBuf::from)), ["a", "a-2", "web-1", "two"]);
    }

    #[test]
    fn a_folder_is_all_its_sockets() {
        let path = folder("sockets");
        fs::create_dir(path.join("domain-1-web")).unwrap();
        fs::write(path.join("notes"), "").unwrap();
        let _listeners = ["b.sock", "domain-1-web/monitor.sock", "domain-1-web/agent.sock"]
            .map(|name| UnixListener::bind(path.join(name)).unwrap());
        let found = addresses(std::slice::from_ref(&path), &[], &[]).unwrap();
        let names: Vec<_> = found.iter().map(|address| address.name.as_str()).collect();
        assert_eq!(names, ["b", "web"]);
        let error = addresses(std::slice::from_ref(&path), &[1], &[]).unwrap_err().to_string();
        assert!(error.contains("--pid"), "{error}");
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn an_empty_folder_and_too_many_pids_are_errors() {
        let path = folder("empty");
        let error = addresses(std::slice::from_ref(&path), &[], &[]).unwrap_err().to_string();
        assert!(error.contains("no socket") && error.contains("empty"), "{error}");
        fs::remove_dir_all(path).unwrap();
        let error = addresses(&["/x".into()], &[1, 2], &[]).unwrap_err().to_string();
        assert!(error.contains("given 2 times for 1 socket"), "{error}");
    }
}
