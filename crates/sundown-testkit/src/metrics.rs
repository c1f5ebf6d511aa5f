//! Metrics as a service shows them, and as a page documents them.

/// A metric by name, kind and help; a counter by its name in whole.
pub type Family = [String; 3];

/// Those of a text, in OpenMetrics or in Prometheus' format, by name.
pub fn families(text: &str) -> Vec<Family> {
    let mut families = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(help) = line.strip_prefix("# HELP ") else {
            continue;
        };
        let (name, help) = help.split_once(' ').expect("a help says something");
        let kind = lines.next().expect("a help is followed by a type");
        let kind = kind.rsplit(' ').next().unwrap_or_default();
        let is_short = kind == "counter" && !name.ends_with("_total");
        let suffix = if is_short { "_total" } else { "" };
        families.push([&format!("{name}{suffix}"), kind, help].map(str::to_owned));
    }
    families.sort();
    families
}

/// Those of the rows `| `name` | kind | labels | help |` of a page, by name.
pub fn documented(page: &str) -> Vec<Family> {
    let row = |row: &str| {
        let cells = row.strip_prefix("| `")?.split('|').map(str::trim);
        let cells: Vec<&str> = cells.collect();
        let [name, kind, _labels, help, ""] = cells[..] else {
            panic!("a row of a metric has four cells: {row}");
        };
        Some([name.trim_end_matches('`'), kind, help].map(str::to_owned))
    };
    let mut families: Vec<Family> = page.lines().filter_map(row).collect();
    families.sort();
    families
}
