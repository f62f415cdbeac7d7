#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| deltasync_testkit::FuzzTarget::Tree.run(bytes));
