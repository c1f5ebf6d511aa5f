//! *Decides* how metrics look to who does not know OpenMetrics: Prometheus' text format 0.0.4, as `promtool` reads it.
//!
//! The same numbers, without exemplars; what counts is named in whole, with its `_total`.

pub(in crate::admin) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Turns OpenMetrics into it.
pub(in crate::admin) fn of(open_metrics: &str) -> String {
    let mut plain = String::with_capacity(open_metrics.len());
    let mut lines = open_metrics.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" || line.starts_with("# UNIT ") {
            continue;
        }
        let Some(help) = line.strip_prefix("# HELP ") else {
            match line.strip_prefix("# TYPE ") {
                Some(of_type) => write_type(&mut plain, of_type),
                None => write_sample(&mut plain, line),
            }
            continue;
        };
        let is_counter = lines
            .peek()
            .is_some_and(|next| next.starts_with("# TYPE ") && next.ends_with(" counter"));
        let (name, text) = help.split_once(' ').unwrap_or((help, ""));
        let suffix = if is_counter { "_total" } else { "" };
        plain.push_str(&format!("# HELP {name}{suffix} {text}\n"));
    }
    plain
}

fn write_type(plain: &mut String, of_type: &str) {
    let suffixed = match of_type.rsplit_once(' ') {
        Some((name, "counter")) => format!("# TYPE {name}_total counter\n"),
        _ => format!("# TYPE {of_type}\n"),
    };
    plain.push_str(&suffixed);
}

fn write_sample(plain: &mut String, line: &str) {
    plain.push_str(without_exemplar(line));
    plain.push('\n');
}

/// A sample up to its exemplar: values of labels, which stand in quotes, may say anything.
fn without_exemplar(line: &str) -> &str {
    let (mut in_quotes, mut is_escaped) = (false, false);
    for (at, byte) in line.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_quotes => is_escaped = true,
            b'"' => in_quotes = !in_quotes,
            b'#' if !in_quotes => return line[..at].trim_end(),
            _ => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_named_in_whole_and_exemplars_are_left_out() {
        let open = "# HELP ready Whether.\n# TYPE ready gauge\nready 1.0\n\
                    # HELP sold Sold.\n# TYPE sold counter\n# UNIT sold items\nsold_total{to=\"a # \\\" # b\"} 7\n\
                    # HELP took How long.\n# TYPE took histogram\n\
                    took_bucket{le=\"0.1\"} 1 # {trace_id=\"5d\"} 0.05 1.5\ntook_sum 0.05\n# EOF\n";
        let expected = "# HELP ready Whether.\n# TYPE ready gauge\nready 1.0\n\
                        # HELP sold_total Sold.\n# TYPE sold_total counter\nsold_total{to=\"a # \\\" # b\"} 7\n\
                        # HELP took How long.\n# TYPE took histogram\n\
                        took_bucket{le=\"0.1\"} 1\ntook_sum 0.05\n";
        assert_eq!(of(open), expected);
    }
}
