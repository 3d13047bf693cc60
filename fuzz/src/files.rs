//! Input files: recordings, directories, configurations.

use std::collections::HashSet;
use std::fs;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::LazyLock;

use kqproc_exporter::cli::config::Settings;
use kqproc_exporter::http::Server;
use kqproc_exporter::http::web_args::WebArgs;
use kqproc_exporter::input::Input;
use kqproc_exporter::recording::{MAGIC, MAX_BLOCK, Reader, VERSION, Writer};
use kqproc_exporter::source::directory::Directory;

use super::play::{ALL_PIDS, Play};

static DIR: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a directory for temporary files"));

/// The bytes as a recording, and as the content of a block with correct checksum and compression.
pub fn recording(data: &[u8]) {
    read(data);
    read(&wrapped(data));
}

fn read(file: &[u8]) {
    let Ok(mut reader) = Reader::new(file) else { return };
    let mut play = Play::new(ALL_PIDS);
    while let Ok(Some(input)) = reader.next() {
        if input != Input::End {
            play.push(input);
        }
    }
    assert!(matches!(reader.next(), Ok(None)), "a damage is an error once");
    play.end();
}

const META: &[u8] =
    br#"{"uname":"","osreldate":0,"program":"","note":"","start_mono_ns":0,"start_real_ns":0}"#;

fn wrapped(payload: &[u8]) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&VERSION.to_le_bytes());
    // The checksums cover everything but themselves.
    let mut summed = file.clone();
    for block in [META, &payload[..payload.len().min(MAX_BLOCK)], b""] {
        let packed = match block {
            b"" => Vec::new(),
            block => zstd::bulk::compress(block, 1).expect("room"),
        };
        let lengths = [block.len(), packed.len()].map(|len| (len as u32).to_le_bytes());
        let stored = [lengths.concat(), packed].concat();
        summed.extend_from_slice(&stored);
        file.extend_from_slice(&stored);
        file.extend_from_slice(&crc32(&summed).to_le_bytes());
    }
    file
}

/// CRC-32, bit by bit, from the polynomial alone.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}

/// `kevents.jsonl`, `dtrace.txt`, `dtrace.err` and `pid.txt` of a directory, with a line `--` between them; what is empty is
/// not there.
pub fn directory(data: &[u8]) {
    let mut parts = split(data, b"\n--\n").into_iter();
    for name in ["kevents.jsonl", "dtrace.txt", "dtrace.err", "pid.txt"] {
        match parts.next().unwrap_or_default() {
            b"" => drop(fs::remove_file(DIR.path().join(name))),
            content => drop(write(name, content)),
        }
    }
    let Ok(directory) = Directory::open(DIR.path()) else { return };
    let mut play = Play::new(ALL_PIDS);
    let mut writer = Writer::new(Vec::new(), &directory.meta()).expect("memory");
    let _ = directory.play(&mut |input: Input<'_>| {
        writer.append(&input).expect("memory");
        if !matches!(input, Input::End | Input::Tree { .. }) {
            play.push(input);
        }
        ControlFlow::Continue(())
    });
    play.end();
    let imported = writer.finish().expect("it is written to memory");
    let mut reader = Reader::new(&imported[..]).expect("what was written is read");
    while reader.next().expect("what was written is whole").is_some() {}
}

fn split<'a>(mut text: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    while let Some(end) = text.windows(at.len()).position(|window| window == at) {
        parts.push(&text[..end]);
        text = &text[end + at.len()..];
    }
    parts.push(text);
    parts
}

/// `--config.file`.
pub fn config(data: &[u8]) {
    match Settings::read(&write("config.toml", data)) {
        Ok(settings) => {
            let names: HashSet<&str> =
                settings.live.targets.iter().map(|t| t.name.as_str()).collect();
            assert_eq!(names.len(), settings.live.targets.len(), "two trees of one name");
            assert!(settings.check.settle_ns > 0 && settings.check.reorder_ns > 0);
            assert!((1 << 10..=1 << 24).contains(&settings.check.capacity));
        }
        Err(error) => {
            let message = error.to_string();
            assert!(
                message.contains("config.toml, line ") && message.lines().count() == 1,
                "{message}"
            );
        }
    }
}

/// `--web.config.file`.
pub fn web_config(data: &[u8]) {
    let args = WebArgs {
        listen_addresses: Vec::new(),
        telemetry_path: "/metrics".into(),
        external_url: None,
        route_prefix: None,
        config_file: Some(write("web.yml", data)),
        max_requests: 1,
    };
    if let Err(error) = Server::bind(&args) {
        assert!(!error.to_string().is_empty());
    }
}

fn write(name: &str, content: &[u8]) -> PathBuf {
    let path = DIR.path().join(name);
    fs::write(&path, content).expect("room for a small file");
    path
}
