//! RFC 6455 as the Autobahn suite reads it, byte by byte: framing, reserved bits, opcodes, pings, fragments, UTF-8, closing and
//! sizes. Each case has a connection of its own, and a neighbour that must notice nothing.

use futures_util::future::join_all;
use serde_json::json;

use crate::harness::App;
use crate::ws::{BINARY, CLOSE, CONTINUATION, FIN, Frame, HANDSHAKE, PING, PONG, TEXT, Ws, wire};

const MASK: [u8; 4] = [7, 0, 200, 31];
const LIMIT: usize = 64 << 10;

/// What a client does, and what must come back up to the end.
struct Case {
    name: String,
    bytes: Vec<u8>,
    /// Written one by one.
    singly: bool,
    is_flood: bool,
    wants: Vec<Want>,
}

#[derive(Clone)]
enum Want {
    /// A pong of the protocol.
    Pong(Vec<u8>),
    /// The answer to [`said`].
    Answer(String),
    /// A close with this code, and then nothing.
    Close(u16),
    /// A close with exactly this payload, and then nothing.
    Echo(Vec<u8>),
}

/// Frames, one after the other.
fn frames<P: AsRef<[u8]>>(frames: impl IntoIterator<Item = (u8, P)>) -> Vec<u8> {
    let one = |(first, payload): (u8, P)| wire(first, payload.as_ref().len() as u64, Some(MASK), payload.as_ref());
    frames.into_iter().flat_map(one).collect()
}

fn frame(first: u8, payload: impl AsRef<[u8]>) -> Vec<u8> {
    frames([(first, payload)])
}

/// A message whose answer repeats `text`.
fn said(text: &str) -> Vec<u8> {
    json!({ "type": "ping", "n": text }).to_string().into_bytes()
}

fn answer(text: &str) -> Want {
    Want::Answer(text.to_string())
}

/// A message cut at `cuts`, as fragments.
fn pieces(message: &[u8], cuts: impl IntoIterator<Item = usize>) -> Vec<(u8, Vec<u8>)> {
    let ends: Vec<usize> = cuts.into_iter().chain([message.len()]).collect();
    let mut start = 0;
    let piece = |(at, end): (usize, &usize)| {
        let opcode = if at == 0 { TEXT } else { CONTINUATION };
        let fin = if at + 1 == ends.len() { FIN } else { 0 };
        (fin | opcode, message[std::mem::replace(&mut start, *end)..*end].to_vec())
    };
    ends.iter().enumerate().map(piece).collect()
}

/// The connection lives on after the frames, which is shown by one more message.
fn lives(name: impl Into<String>, bytes: Vec<u8>, wants: impl IntoIterator<Item = Want>) -> Case {
    let bytes = [bytes, frames([(FIN | TEXT, &said("and on")[..]), (FIN | CLOSE, &[3, 0xE8])])].concat();
    let wants = wants.into_iter().chain([answer("and on"), Want::Echo(vec![3, 0xE8])]).collect();
    Case { name: name.into(), bytes, singly: false, is_flood: false, wants }
}

/// The connection ends with `code`; what comes after is not looked at.
fn ends(name: impl Into<String>, bytes: Vec<u8>, code: u16) -> Case {
    let bytes = [bytes, frame(FIN | TEXT, said("nobody hears it"))].concat();
    Case { name: name.into(), bytes, singly: false, is_flood: false, wants: vec![Want::Close(code)] }
}

fn framing() -> Vec<Case> {
    let mut cases = Vec::new();
    for length in [23, 125, 126, 127, 128, 65_535, LIMIT] {
        let mut message = said("");
        message.resize(length, b' ');
        cases.push(lives(format!("message of {length} bytes"), frame(FIN | TEXT, message), [answer("")]));
    }
    let unpadded = said("");
    let long = |extended: &[u8]| [&[FIN | TEXT, 0x80 | extended[0]], &extended[1..], &[0; 4], &unpadded[..]].concat();
    let length = u8::try_from(unpadded.len()).unwrap();
    cases.push(lives("a zero mask", long(&[length]), [answer("")]));
    cases.push(lives(
        "two messages at once",
        frames([(FIN | TEXT, said("1")), (FIN | TEXT, said("2"))]),
        [answer("1"), answer("2")],
    ));
    let singly = lives(
        "byte by byte",
        frames([(FIN | PING, vec![1; 126 - 1]), (FIN | TEXT, said("ä"))]),
        [Want::Pong(vec![1; 125]), answer("ä")],
    );
    cases.push(Case { singly: true, ..singly });
    for (name, first, payload) in [("message", TEXT, &b"{}"[..]), ("ping", PING, b""), ("close", CLOSE, &[3, 0xE8])] {
        cases.push(ends(format!("unmasked {name}"), wire(FIN | first, payload.len() as u64, None, payload), 1002));
    }
    cases
}

fn reserved() -> Vec<Case> {
    let bits = [0x40, 0x20, 0x10, 0x60, 0x50, 0x30, 0x70];
    let mut cases: Vec<Case> = bits
        .map(|bits| ends(format!("reserved bits {bits:#x}"), frame(FIN | bits | TEXT, said("")), 1002))
        .into_iter()
        .chain([PING, PONG, CLOSE].map(|op| ends(format!("reserved bit, {op:#x}"), frame(FIN | 0x40 | op, b""), 1002)))
        .collect();
    let later = frames([(TEXT, &b"{"[..]), (FIN | 0x20 | CONTINUATION, b"}")]);
    cases.push(ends("reserved bit in a continuation", later, 1002));
    for opcode in [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF] {
        cases.push(ends(format!("reserved opcode {opcode:#x}"), frame(FIN | opcode, b""), 1002));
    }
    let within = frames([(TEXT, &b"{"[..]), (FIN | 0x3, b"}")]);
    cases.push(ends("reserved opcode in the midst of a message", within, 1002));
    cases
}

fn pings() -> Vec<Case> {
    let mut cases: Vec<Case> = [vec![], b"are you there?".to_vec(), vec![0x00, 0xFF, 0xFE, 0xFD], vec![0xFE; 125]]
        .map(|payload| {
            lives(format!("ping of {} bytes", payload.len()), frame(FIN | PING, &payload), [Want::Pong(payload)])
        })
        .into();
    let ten = || (0..10).map(|n| vec![n]);
    let many = frames(ten().map(|n| (FIN | PING, n)));
    cases.push(lives("ten pings at once", many, ten().map(Want::Pong)));
    cases.push(lives("a pong that nobody asked for", frame(FIN | PONG, b"hello"), []));
    let both = frames([(FIN | PONG, b"hello"), (FIN | PING, b"there")]);
    cases.push(lives("a pong, then a ping", both, [Want::Pong(b"there".to_vec())]));
    for (name, op) in [("ping", PING), ("pong", PONG), ("close", CLOSE)] {
        cases.push(ends(format!("{name} of 126 bytes"), frame(FIN | op, vec![b'a'; 126]), 1002));
        cases.push(ends(format!("{name} in pieces"), frames([(op, b"a"), (FIN | CONTINUATION, b"b")]), 1002));
    }
    let flood = ends("a flood of pings", frames((0..400).map(|_| (FIN | PING, b""))), 4429);
    cases.push(Case { is_flood: true, ..flood });
    cases
}

fn fragments() -> Vec<Case> {
    let text = "Grüße, κόσμε 𝄞";
    let message = said(text);
    let whole = || [answer(text)];
    let mut cases = vec![
        lives("two pieces", frames(pieces(&message, [9])), whole()),
        lives("every byte a piece", frames(pieces(&message, 1..message.len())), whole()),
        lives("empty pieces", frames(pieces(&message, [0, 9, 9, 9, message.len()])), whole()),
        Case { singly: true, ..lives("pieces, byte by byte", frames(pieces(&message, [20])), whole()) },
        ends("continuation of nothing, the last", frame(FIN | CONTINUATION, b"{}"), 1002),
        ends("continuation of nothing, not the last", frame(CONTINUATION, b"{"), 1002),
        ends("a message within a message", frames([(TEXT, b"{"), (FIN | TEXT, b"}")]), 1002),
        ends("pieces within pieces", frames([(TEXT, b"{"), (TEXT, b"}")]), 1002),
        ends("binary within text", frames([(TEXT, b"{"), (FIN | BINARY, b"}")]), 1002),
    ];
    let between = |op, what: &str| {
        let mut all = pieces(&message, [5, 20]);
        all.insert(2, (FIN | op, what.as_bytes().to_vec()));
        all.insert(1, (FIN | op, what.as_bytes().to_vec()));
        frames(all)
    };
    let pong = || Want::Pong(b"!".to_vec());
    cases.push(lives("pings between pieces", between(PING, "!"), [pong(), pong(), answer(text)]));
    cases.push(lives("pongs between pieces", between(PONG, "!"), whole()));
    let after = [frames(pieces(&message, [9])), frame(FIN | CONTINUATION, b"")].concat();
    cases.push(Case { wants: vec![answer(text), Want::Close(1002)], ..ends("a continuation too many", after, 1002) });
    let closed = frames([(TEXT, &b"{"[..]), (FIN | CLOSE, &[3, 0xE8])]);
    cases.push(Case { wants: vec![Want::Echo(vec![3, 0xE8])], ..ends("a close between pieces", closed, 1000) });
    cases
}

fn utf8() -> Vec<Case> {
    let good = [
        "κόσμε",
        "\u{7F}\u{80}\u{7FF}\u{800}",
        "\u{D7FF}\u{E000}\u{FFFD}",
        "\u{FFFE}\u{FFFF}\u{FEFF}",
        "\u{10000}\u{10FFFF}",
    ];
    let mut cases: Vec<Case> = good
        .map(|text| lives(format!("UTF-8 {}", text.escape_unicode()), frame(FIN | TEXT, said(text)), [answer(text)]))
        .into();
    let bad: [(&str, &[u8]); 14] = [
        ("no lead byte", &[0x80]),
        ("only continuations", &[0xBF, 0x80, 0xBF]),
        ("an ASCII letter in two bytes", &[0xC0, 0xAF]),
        ("one in three bytes", &[0xE0, 0x80, 0xAF]),
        ("one in four bytes", &[0xF0, 0x80, 0x80, 0xAF]),
        ("the longest of those", &[0xF0, 0x8F, 0xBF, 0xBF]),
        ("the first surrogate", &[0xED, 0xA0, 0x80]),
        ("the last surrogate", &[0xED, 0xBF, 0xBF]),
        ("above Unicode", &[0xF4, 0x90, 0x80, 0x80]),
        ("five bytes", &[0xF8, 0x88, 0x80, 0x80, 0x80]),
        ("0xFE", &[0xFE]),
        ("0xFF", &[0xFF]),
        ("half a character", &[0xE2, 0x82]),
        ("half a character, then a letter", &[0xCE, b'a']),
    ];
    for (name, bytes) in bad {
        cases.push(ends(format!("UTF-8: {name}"), frame(FIN | TEXT, [b"\"", bytes].concat()), 1007));
        let late = [(TEXT, &b"\""[..]), (CONTINUATION, bytes), (FIN | CONTINUATION, b"\"")];
        cases.push(ends(format!("UTF-8: {name}, in the midst"), frames(late), 1007));
    }
    cases.push(ends(
        "half a character at the end",
        frames([(TEXT, &[0xE2, 0x82][..]), (FIN | CONTINUATION, b"")]),
        1007,
    ));
    cases
}

fn closing() -> Vec<Case> {
    let of = |code: u16, reason: &str| [&code.to_be_bytes()[..], reason.as_bytes()].concat();
    let echo = |name: String, payload: Vec<u8>| {
        // What comes after a close is not for anybody.
        let bytes = frames([(FIN | CLOSE, &payload[..]), (FIN | PING, b"too late"), (FIN | TEXT, &said("too late"))]);
        Case { name, bytes, singly: false, is_flood: false, wants: vec![Want::Echo(payload)] }
    };
    let mut cases = vec![echo("close without a code".into(), vec![])];
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999] {
        cases.push(echo(format!("close {code}"), of(code, "")));
    }
    cases.push(echo("close with a reason".into(), of(1000, "für heute")));
    cases.push(echo("close with the longest reason".into(), of(1000, &"x".repeat(123))));
    cases.push(ends("close of one byte", frame(FIN | CLOSE, [3]), 1002));
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
        cases.push(ends(format!("close {code}, which is never sent"), frame(FIN | CLOSE, of(code, "")), 1002));
    }
    let reason = [&[3, 0xE8][..], b"ok ", &[0xED, 0xA0, 0x80]].concat();
    cases.push(ends("a reason that is no UTF-8", frame(FIN | CLOSE, reason), 1007));
    let twice = frames([(FIN | CLOSE, of(1000, "")), (FIN | CLOSE, of(1001, ""))]);
    cases.push(Case { bytes: twice, ..echo("close twice".into(), of(1000, "")) });
    cases
}

fn sizes() -> Vec<Case> {
    let mut message = said("");
    message.resize(LIMIT, b' ');
    let small = pieces(&message, (1..64).map(|n| n << 10));
    let mut more = small.clone();
    more[63].0 = CONTINUATION;
    more.push((FIN | CONTINUATION, vec![b' ']));
    let announced = |length: u64| wire(FIN | TEXT, length, Some(MASK), b"{}");
    vec![
        lives("64 KiB in pieces", frames(small), [answer("")]),
        ends("one byte more in pieces", frames(more), 1009),
        ends("one byte more", frame(FIN | TEXT, vec![b'x'; LIMIT + 1]), 1009),
        ends("a terabyte announced", announced(1 << 40), 1009),
        ends("more than there can be announced", announced(u64::MAX), 1009),
        ends("binary", frame(FIN | BINARY, b"{}"), 1003),
        ends("binary in pieces", frames([(BINARY, b"{"), (FIN | CONTINUATION, b"}")]), 1003),
    ]
}

/// Plays a case on a fresh connection; what was not as it must be.
async fn play(app: &App, case: &Case) -> Result<(), String> {
    let mut ws = Ws::open(app, "/products/events").await;
    ws.json().await;
    match case.singly {
        true => {
            for byte in &case.bytes {
                ws.bytes(&[*byte]).await;
            }
        }
        false => ws.bytes(&case.bytes).await,
    }
    for want in &case.wants {
        let mut frame = ws.frame().await;
        // As many as were allowed are answered.
        while case.is_flood && frame.as_ref().is_some_and(|frame| frame.first == FIN | PONG) {
            frame = ws.frame().await;
        }
        let got = || format!("{}: {frame:?}", case.name);
        let Some(Frame { first, payload }) = &frame else { return Err(got()) };
        let good = match want {
            Want::Pong(sent) => *first == FIN | PONG && payload == sent,
            Want::Answer(text) => {
                let answer: serde_json::Value = serde_json::from_slice(payload).map_err(|_| got())?;
                *first == FIN | TEXT && answer["type"] == "pong" && answer["n"] == **text
            }
            Want::Close(code) => *first == FIN | CLOSE && payload.starts_with(&code.to_be_bytes()),
            Want::Echo(sent) => *first == FIN | CLOSE && payload == sent,
        };
        if !good {
            return Err(got());
        }
    }
    match ws.frame().await {
        None => Ok(()),
        more => Err(format!("{}: after the end {more:?}", case.name)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_input_a_socket_keeps_to_the_rfc_whatever_is_sent() {
    let app = App::start().await;
    let mut neighbour = Ws::open(&app, "/products/events").await;
    neighbour.json().await;
    let groups = [framing(), reserved(), pings(), fragments(), utf8(), closing(), sizes()];
    let cases: Vec<Case> = groups.into_iter().flatten().collect();
    assert!(cases.len() >= 60, "{}", cases.len());
    let played = join_all(cases.iter().map(|case| play(&app, case))).await;
    let failed: Vec<String> = played.into_iter().filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{} of {} cases: {failed:#?}", failed.len(), cases.len());
    neighbour.text(r#"{"type":"ping","n":7}"#).await;
    assert_eq!(neighbour.json().await["n"], 7);
}

#[tokio::test]
async fn any_input_a_frame_that_comes_with_the_handshake_is_read() {
    let app = App::start().await;
    let mut ws = Ws::eager(&app, "/products/events", &HANDSHAKE, &frame(FIN | TEXT, said("early"))).await;
    assert_eq!(ws.json().await["type"], "hello");
    assert_eq!(ws.json().await["n"], "early");
}

#[tokio::test]
async fn any_input_a_socket_of_cbor_takes_binary_messages_only() {
    let app = App::start().await;
    let headers = [&HANDSHAKE[..], &[("Sec-WebSocket-Protocol", "diorama.v1+cbor")]].concat();
    let mut message = Vec::new();
    ciborium::into_writer(&json!({ "type": "ping", "n": 5 }), &mut message).unwrap();
    for (first, good) in [(BINARY, true), (TEXT, false)] {
        let (answer, mut ws) = Ws::handshake(&app, "/products/events", &headers).await;
        assert_eq!(answer.status, 101);
        ws.cbor().await;
        ws.send(FIN | first, &message).await;
        match good {
            true => assert!(format!("{:?}", ws.cbor().await).contains("pong")),
            // No UTF-8, as it happens: either is said.
            false => assert!([1003, 1007].contains(&ws.closed().await)),
        }
    }
}
