//! Documents with generated parts: each stands between the comments `<!-- NAME -->` and `<!-- /NAME -->`.

use std::fs;
use std::path::Path;

use super::Failure;

/// `document` with its part `name` replaced by `text`; `None` if it has no such part.
pub(crate) fn spliced(document: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let start = document.find(&begin)? + begin.len();
    let stop = start + document[start..].find(&end)?;
    Some([&document[..start], "\n", text.trim(), "\n\n", &document[stop..]].concat())
}

/// Replaces part `name` of the document at `path`.
pub(crate) fn write_between(path: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let document = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let spliced = spliced(&document, name, text);
    let missing = || format!("{} has no part <!-- {name} -->", path.display());
    Ok(fs::write(path, spliced.ok_or_else(missing)?)?)
}
