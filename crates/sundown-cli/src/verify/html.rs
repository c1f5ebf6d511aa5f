//! Puts one run into one page for people: the verdicts, and what clients did, to zoom into.
//!
//! The promise: one file that loads nothing. What a service says stays data: the page's script puts
//! it into text, and nothing of it can end the element that it stands in.

use serde_json::{Value, json};
use sundown_verify::Target;
use sundown_verify::suite::Judged;

use super::{Arguments, json};

const PAGE: &str = include_str!("report.html");

/// Stands in the page for what it tells.
const DATA: &str = "{{data}}";

pub(super) fn document(arguments: &Arguments, target: &Target, judged: &Judged) -> String {
    let mut data = json::value(arguments, target, judged);
    data["timelines"] = json!(judged.timelines);
    page(&data)
}

fn page(data: &Value) -> String {
    PAGE.replacen(DATA, &embeddable(data), 1)
}

/// JSON that may stand in a `script` element: it has no `<`, which JSON needs in strings alone
/// (HTML, 4.12.1.3, restrictions for contents of script elements).
fn embeddable(data: &Value) -> String {
    data.to_string().replace('<', "\\u003c")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_says_cannot_end_its_element() {
        for text in [
            "</script>",
            "<!--<script>",
            "<",
            "{{data}}",
            "a & b > \"c\"",
        ] {
            let data = json!({ "seen": text });
            let embedded = embeddable(&data);
            assert!(!embedded.contains('<'), "{embedded}");
            let read: Value = serde_json::from_str(&embedded).unwrap();
            assert_eq!(read, data);
        }
    }

    #[test]
    fn the_page_has_one_place_for_data_and_names_nothing_outside_of_itself() {
        assert_eq!(PAGE.matches(DATA).count(), 1);
        for outside in ["http:", "https:", "src=", "<link", "@import", "url("] {
            assert!(!PAGE.contains(outside), "{outside}");
        }
    }
}
