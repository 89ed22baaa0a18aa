//! The results: criterion's medians as a table and a picture.

use std::fmt::Write as _;
use std::path::Path;

use super::OPERATIONS;
use super::chart::{self, Axis, Corner, Failure, Lines, Panel, Series, document};
use super::estimates::median;
use super::memory::{SIZES, Shape, records};

/// The medians as a table, with the size of the records.
pub(crate) fn table(folder: &Path) -> Result<String, Failure> {
    let sizes: Vec<_> = SIZES.iter().map(|(size, _)| *size).collect();
    let mut table = format!("| | | {} |\n|---|---|{}", sizes.join(" | "), "---|".repeat(sizes.len()));
    table += "\n| records | share of memory |";
    for (size, bytes) in SIZES {
        let share = bytes / records(bytes);
        if share < 2048 {
            return Err(format!("the records of {size} take more than 1/2048 of it: 1/{share}").into());
        }
        write!(table, " 1/{share} |")?;
    }
    for (operation, _) in OPERATIONS {
        for shape in Shape::ALL {
            write!(table, "\n| {operation} | {} |", shape.name())?;
            for (size, _) in SIZES {
                write!(table, " {:.0} ns |", median(folder, operation, shape.name(), size)?)?;
            }
        }
    }
    Ok(table)
}

/// Writes the documents.
pub(crate) fn publish(folder: &Path, table: &str, root: &Path) -> Result<(), Failure> {
    document::write_between(&root.join("docs/scale.md"), "scale", table)?;
    let x = || Axis { label: "memory, GiB".into(), log: true };
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let points = |of: &dyn Fn(u64) -> f64| SIZES.iter().map(|(_, bytes)| (gib(*bytes), of(*bytes))).collect();
    let series = |name: &str, of: &dyn Fn(u64) -> f64| Series { name: name.into(), points: points(of) };
    let mut panels = vec![Panel::Lines(Lines {
        title: "records of the allocator".into(),
        names: Corner::UpperLeft,
        x: x(),
        y: Axis { label: "bytes".into(), log: true },
        series: vec![
            series("bound: 1/2048", &|bytes| bytes as f64 / 2048.0),
            series("records", &|bytes| records(bytes) as f64),
        ],
    })];
    for (operation, _) in OPERATIONS {
        let of_shape = |shape: Shape| -> Result<Series, Failure> {
            let at = |(size, bytes): &(&str, u64)| Ok((gib(*bytes), median(folder, operation, shape.name(), size)?));
            let points: Result<_, Failure> = SIZES.iter().map(at).collect();
            Ok(Series { name: shape.name().into(), points: points? })
        };
        panels.push(Panel::Lines(Lines {
            title: operation.into(),
            names: Corner::LowerRight,
            x: x(),
            y: Axis { label: "ns".into(), log: false },
            series: Shape::ALL.into_iter().map(of_shape).collect::<Result<_, _>>()?,
        }));
    }
    chart::draw(&root.join("docs/scale.svg"), 2, &panels)
}
