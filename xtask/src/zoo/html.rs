//! The zoo as one HTML file that needs no other.

use std::fmt::Write as _;

use super::markdown::{told, verdict};
use super::{LEGEND, Zoo, mark};

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:90rem;margin:2rem auto;padding:0 1rem;color:#1c1c1c;background:#fff}\
table{border-collapse:collapse}th,td{padding:.3rem .6rem;border-bottom:1px solid #ddd;text-align:center}\
th:first-child,td:first-child{text-align:left}thead th{position:sticky;top:0;background:#fff}\
.pass{color:#14692f}.fail{background:#fbd9d5;color:#8c1007;font-weight:bold}\
.flaky,.unclear{background:#fdf0c8;color:#6b4e00}code{font-size:.9em}small{color:#666}\
@media(prefers-color-scheme:dark){body,thead th{background:#161616;color:#ddd}td,th{border-color:#333}\
.pass{color:#6fcf88}.fail{background:#5a1511;color:#ffd5d0}.flaky,.unclear{background:#4d3b05;color:#ffe9a8}small{color:#999}}";

pub(super) fn page(zoo: &Zoo) -> String {
    let title = escape(&zoo.topic.title.replace('`', ""));
    let mut text = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    let _ = writeln!(
        text,
        "<p>Made by <code>{}</code>. {}; runs of each check: {}. {}</p>",
        zoo.topic.chore,
        escape(&zoo.machine),
        zoo.runs,
        escape(LEGEND)
    );
    text.push_str("<table>\n<thead><tr><th>check</th>");
    for (subject, seen) in zoo.seen() {
        let _ = write!(
            text,
            "<th>{}<br><small>{}</small></th>",
            escape(&subject.name),
            escape(&seen.version)
        );
    }
    text.push_str("</tr></thead>\n<tbody>\n");
    for check in &zoo.checks {
        let _ = write!(
            text,
            "<tr><td title=\"{}\"><code>{}</code> {} <small>{:?}</small></td>",
            escape(check.method),
            check.id,
            escape(check.promise),
            check.level
        );
        for (_, seen) in zoo.seen() {
            let mark = mark(verdict(seen, check.id));
            let words = seen.judged.judgements.iter();
            let mut words = words.filter(|judgement| judgement.check.id == check.id);
            let words = words.next().map_or("", |judgement| &judgement.seen);
            let _ = write!(
                text,
                "<td class=\"{}\" title=\"{}\">{}</td>",
                mark.class,
                escape(words),
                mark.sign
            );
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody>\n</table>\n");
    for visit in &zoo.visits {
        let name = escape(&visit.subject.name);
        let _ = writeln!(text, "<h2>{name}</h2>");
        let seen = match &visit.outcome {
            Ok(seen) => seen,
            Err(missing) => {
                let _ = writeln!(text, "<p>Not run: {}</p>", escape(missing));
                continue;
            }
        };
        let _ = writeln!(text, "<p><code>{}</code></p>\n<ul>", escape(&visit.command));
        for judgement in told(seen) {
            let _ = writeln!(
                text,
                "<li><code>{}</code> {}: {}</li>",
                judgement.check.id,
                escape(judgement.check.promise),
                escape(&judgement.seen)
            );
        }
        text.push_str("</ul>\n");
    }
    text
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_servers_say_is_no_markup() {
        assert_eq!(
            super::escape("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }
}
