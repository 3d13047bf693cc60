#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| kqproc_fuzz::directory(data));
