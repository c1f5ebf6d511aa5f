//! Expect: 100-continue over the signal.

use std::time::Duration;

use http::header::{EXPECT, HeaderValue};

use crate::check::{Check, Finding, Level, Need, Stop};
use crate::checks::over_signal;
use crate::http1::Letter;
use crate::plan::Request;
use crate::stop::Stage;

pub(super) const CHECK: Check = Check {
    id: "http1/10",
    level: Level::Should,
    promise: "a client that waits for 100 Continue over the signal is answered",
    method: "eight clients send a head with Expect: 100-continue before the signal and the body 400 ms later",
    criterion: "each is answered, by any final status",
    source: "RFC 9110 §10.1.1",
    advice: "A head that has arrived is a request in flight: answer it, by 100 and then the rest, or by a final status at once",
    needs: &[Need::Http1, Need::Upload],
    stop: Stop::Shared,
    play: |stage| Box::pin(play(stage)),
};

const CLIENTS: usize = 8;
const BEFORE_THE_BODY: Duration = Duration::from_millis(400);

async fn play(mut stage: Stage) -> Finding {
    let upload = stage.service().offers.upload.clone().unwrap_or_default();
    let request =
        Request::post(upload, "expected").header(EXPECT, HeaderValue::from_static("100-continue"));
    let letter = Letter::new(&[request], stage.address()).trickled(1, BEFORE_THE_BODY);
    over_signal(&mut stage, &letter, CLIENTS).await.0
}
