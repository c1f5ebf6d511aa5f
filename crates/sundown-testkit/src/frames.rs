//! Writes raw HTTP/2 frames (RFC 9113 §6), for servers that misbehave on purpose.

/// An empty SETTINGS frame: a server's preface.
pub fn settings() -> Vec<u8> {
    frame(0x4, 0, 0, &[])
}

/// The acknowledgement of a client's SETTINGS.
pub fn settings_ack() -> Vec<u8> {
    frame(0x4, 0x1, 0, &[])
}

/// A response of 200 without a body.
pub fn ok(stream: u32) -> Vec<u8> {
    const END_STREAM_AND_HEADERS: u8 = 0x5;
    frame(0x1, END_STREAM_AND_HEADERS, stream, &[STATUS_200])
}

/// The head of a response of 200 whose body is to follow.
pub fn ok_head(stream: u32) -> Vec<u8> {
    const END_HEADERS: u8 = 0x4;
    frame(0x1, END_HEADERS, stream, &[STATUS_200])
}

/// A reset of one stream.
pub fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(0x3, 0, stream, &code.to_be_bytes())
}

/// GOAWAY without an error: streams above `last` were not processed.
pub fn goaway(last: u32) -> Vec<u8> {
    let mut payload = last.to_be_bytes().to_vec();
    payload.extend([0; 4]);
    frame(0x7, 0, 0, &payload)
}

/// The index of `:status: 200` in HPACK's static table (RFC 7541, appendix A).
const STATUS_200: u8 = 0x88;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("test frames are short");
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}
