//! The page that `sundown verify --html` writes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use assert_cmd::cargo::cargo_bin;
use fantoccini::actions::{InputSource, MOUSE_BUTTON_LEFT, MouseActions, PointerAction};
use fantoccini::elements::Element;
use serde_json::{Value, json};
use sundown_testkit::bin_path;

use super::driver::{Page, folder, look};

/// The stop that most checks share, and the one of the check that freezes the server.
const SHARED: usize = 0;
const HELD: usize = 1;

#[tokio::test]
#[ignore = "needs a browser: cargo xtask browser"]
async fn it_shows_what_the_run_found() {
    let folder = folder();
    let run = Run::on_planted("impatient", folder.path());
    look(folder.path(), async move |page| look_at(&page, &run).await).await;
}

async fn look_at(page: &Page, run: &Run) {
    page.0.set_window_size(1200, 2400).await.unwrap();
    page.0.goto(&run.page).await.unwrap();
    the_table_tells_the_verdicts_of_the_json(page, run).await;
    each_request_of_a_stop_has_its_bar(page, run).await;
    classes_and_checks_can_be_hidden(page, run).await;
    signal_listener_and_exit_are_marked(page).await;
    the_axis_can_be_zoomed_by_buttons_keys_wheel_and_drag(page).await;
    a_request_tells_about_itself(page).await;
    let errors = page
        .js("return document.documentElement.dataset.errors")
        .await;
    assert_eq!(errors, "0", "nothing failed in the page");
}

async fn the_table_tells_the_verdicts_of_the_json(page: &Page, run: &Run) {
    let told = page.js("return Object.fromEntries([...document.querySelectorAll('[data-check]')].map(row => [row.dataset.check, row.querySelector('.verdict').innerText.toLowerCase()]))").await;
    let told: BTreeMap<String, String> = serde_json::from_value(told).unwrap();
    let checks = run.document["checks"].as_array().unwrap();
    let of_json = checks
        .iter()
        .map(|check| (text(&check["id"]), text(&check["verdict"])));
    assert_eq!(told, of_json.collect());
    let whole = page.text("#verdict").await.to_lowercase();
    assert_eq!(whole, text(&run.document["verdict"]));
    // Where this machine is busy there may be none.
    let causes = checks.iter().map(|check| &check["cause"]);
    let causes = causes.filter(|cause| cause.is_string());
    let words = [&run.document["checks"][1]["advice"], &json!("evidence")];
    for words in words.into_iter().chain(causes) {
        let table = page.text("#checks").await;
        assert!(table.contains(&text(words)), "{words} in {table}");
    }
}

async fn each_request_of_a_stop_has_its_bar(page: &Page, run: &Run) {
    for stop in [HELD, SHARED] {
        page.choose("#stop", &stop.to_string()).await;
        page.click("#whole").await;
        assert_eq!(page.drawn().await, run.bars(stop).len());
        page.each_bar_has_the_colour_of_its_class().await;
    }
}

async fn classes_and_checks_can_be_hidden(page: &Page, run: &Run) {
    let bars = run.bars(SHARED);
    let of = |class: &str| bars.iter().filter(|bar| bar["class"] == class).count();
    let lost = of("lost");
    assert!(
        lost > 0 && of("answered") > 0,
        "there is something to tell apart"
    );
    let toggle = async |class: &str| page.click(&format!("#classes [value={class}]")).await;
    toggle("lost").await;
    assert_eq!(page.drawn().await, bars.len() - lost);
    page.each_bar_has_the_colour_of_its_class().await;
    toggle("lost").await;
    toggle("answered").await;
    toggle("declined").await;
    toggle("local-error").await;
    assert_eq!(page.drawn().await, lost);
    for class in ["answered", "declined", "local-error"] {
        toggle(class).await;
    }
    assert_eq!(page.drawn().await, bars.len());

    page.choose("#check", "signal/2").await;
    assert_eq!(page.drawn().await, 0, "it makes no request");
    page.choose("#check", "http1/8").await;
    assert_eq!(page.drawn().await, 24, "three from each of eight clients");
    page.choose("#check", "").await;
    assert_eq!(page.drawn().await, bars.len());
}

async fn signal_listener_and_exit_are_marked(page: &Page) {
    let marks = page.all(".mark").await;
    let mut told = Vec::new();
    for mark in &marks {
        assert!(mark.is_displayed().await.unwrap());
        told.push(mark.text().await.unwrap());
    }
    let expected = ["signal, 0 ms", "listener closed, ", "exit code 0, "];
    assert_eq!(told.len(), expected.len(), "{told:?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}");
    }
}

async fn the_axis_can_be_zoomed_by_buttons_keys_wheel_and_drag(page: &Page) {
    let whole = page.axis().await;
    let span = async || {
        page.js("return view.to - view.from")
            .await
            .as_f64()
            .unwrap()
    };
    let full = span().await;
    let reset = async || {
        page.click("#whole").await;
        assert_eq!(page.axis().await, whole);
    };

    page.click("#closer").await;
    assert_ne!(page.axis().await, whole);
    assert!((span().await / full - 0.5).abs() < 0.01);
    reset().await;

    page.find("#scroll").await.send_keys("+").await.unwrap();
    assert_ne!(page.axis().await, whole);
    page.find("#scroll").await.send_keys("0").await.unwrap();
    assert_eq!(page.axis().await, whole);

    let canvas = page.find("#lanes").await;
    let drag = MouseActions::new("mouse".to_owned())
        .then(to(&canvas, -50.0))
        .then(PointerAction::Down {
            button: MOUSE_BUTTON_LEFT,
        })
        .then(to(&canvas, 150.0))
        .then(PointerAction::Up {
            button: MOUSE_BUTTON_LEFT,
        });
    page.0.perform_actions(drag).await.unwrap();
    let expected = page.js("return 200 / plotWidth()").await.as_f64().unwrap();
    let share = span().await / full;
    assert!(
        (share / expected - 1.0).abs() < 0.05,
        "{share} of the whole"
    );
    reset().await;

    page.js("byId('axis').dispatchEvent(new WheelEvent('wheel', { deltaY: -400, cancelable: true, clientX: 600 }))")
        .await;
    assert!(span().await < full);
    reset().await;
}

async fn a_request_tells_about_itself(page: &Page) {
    let (canvas, detail) = (page.find("#lanes").await, page.find("#detail").await);
    assert!(!detail.is_displayed().await.unwrap());
    let at = page.js("const row = rows.find((row) => row.bars); const bar = row.bars[0].bar; const box = canvas.getBoundingClientRect(); return [(xOf(bar.from) + xOf(bar.to)) / 2 - box.width / 2, row.top + 5 - box.height / 2, bar.request, laneName(row.lane)]").await;
    let hover = MouseActions::new("mouse".to_owned()).then(PointerAction::MoveToElement {
        element: canvas,
        duration: None,
        x: at[0].as_f64().unwrap(),
        y: at[1].as_f64().unwrap(),
    });
    page.0.perform_actions(hover).await.unwrap();
    let told = page.text("#detail").await;
    for words in [&at[2], &at[3]] {
        assert!(told.contains(&text(words)), "{words} in {told}");
    }

    let scroll = page.find("#scroll").await;
    scroll.send_keys("n").await.unwrap();
    let first = page.text("#detail").await;
    assert!(
        first.contains("lost: ") && first.contains("/slow"),
        "{first}"
    );
    scroll.send_keys("n").await.unwrap();
    assert_ne!(page.text("#detail").await, first, "the next one");
}

/// Moves the pointer this far from the middle of an element.
fn to(element: &Element, x: f64) -> PointerAction {
    PointerAction::MoveToElement {
        element: element.clone(),
        duration: None,
        x,
        y: 0.0,
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// What one run wrote.
struct Run {
    /// The page's address.
    page: String,
    document: Value,
    timelines: Value,
}

impl Run {
    /// Plays checks on the server with this fault: three that share a stop, and one that has its own.
    fn on_planted(fault: &str, folder: &Path) -> Self {
        let (page, json) = (folder.join("run.html"), folder.join("run.json"));
        let planted = bin_path("examples/planted");
        let output = Command::new(cargo_bin!("sundown"))
            .args(["verify", "--fast", "/fast", "--slow", "/slow"])
            .args(["--only", "signal/2,http1/1,http1/8,http1/2"])
            .arg("--html")
            .arg(&page)
            .arg("--json")
            .arg(&json)
            .arg("--")
            .arg(planted)
            .args(["{port}", fault])
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{told}");
        let written = fs::read_to_string(&page).unwrap();
        let (_, data) = written.split_once(r#"id="data">"#).unwrap();
        let (data, _) = data.split_once("</script>").unwrap();
        let data: Value = serde_json::from_str(data).unwrap();
        Self {
            page: format!("file://{}", page.display()),
            document: serde_json::from_slice(&fs::read(json).unwrap()).unwrap(),
            timelines: data["timelines"].clone(),
        }
    }

    /// The requests of a stop.
    fn bars(&self, stop: usize) -> Vec<Value> {
        let lanes = self.timelines[stop]["lanes"].as_array().unwrap();
        let bars = lanes
            .iter()
            .flat_map(|lane| lane["bars"].as_array().unwrap());
        bars.cloned().collect()
    }
}

impl Page {
    /// How many bars are drawn; as the window is tall, these are all that the filters leave.
    async fn drawn(&self) -> usize {
        let counts = self
            .js("return [canvas.dataset.drawn, canvas.dataset.shown]")
            .await;
        assert_eq!(counts[0], counts[1], "what is shown is drawn");
        text(&counts[0]).parse().unwrap()
    }

    /// The names of the axis's ticks.
    async fn axis(&self) -> Value {
        self.js("return [...document.querySelectorAll('.tick')].map(tick => tick.innerText)")
            .await
    }

    /// Looks at the pixels: in the middle of each bar, or on the edge of one that is hollow.
    async fn each_bar_has_the_colour_of_its_class(&self) {
        let other = self.js(PIXELS).await;
        assert_eq!(other, json!([]));
    }
}

/// Returns the bars whose pixels have another colour than their class, but for those that others cover.
const PIXELS: &str = "
    const pen = canvas.getContext('2d');
    const style = getComputedStyle(document.documentElement);
    const other = [];
    for (const row of rows.filter((row) => row.bars)) {
        for (const { bar, row: at } of row.bars) {
            const near = (other) => other !== bar && Math.abs(xOf(other.from) - xOf(bar.from)) < 3;
            if (row.bars.some((one) => one.row === at && near(one.bar))) continue;
            const x = Math.floor((xOf(bar.from) + Math.max(xOf(bar.to), xOf(bar.from) + 2)) / 2);
            const middle = row.top - scroll.scrollTop + at * ROW + (CLASSES[bar.class].swatch === 'hollow' ? 2.5 : 5);
            const pixel = [...pen.getImageData(x, Math.floor(middle), 1, 1).data.slice(0, 3)];
            const colour = style.getPropertyValue('--' + bar.class).trim().slice(1);
            const expected = [0, 2, 4].map((digit) => parseInt(colour.slice(digit, digit + 2), 16));
            if (pixel.some((part, index) => Math.abs(part - expected[index]) > 60)) other.push([bar, pixel, expected]);
        }
    }
    return other;
";
