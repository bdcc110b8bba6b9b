//! What is said about what does not compile. Nothing here may pass: `trybuild` would then build and
//! link all dependencies where it need only check them. What compiles is in `compiles`.

#[test]
fn ui() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/ui/*/*.rs");
    #[cfg(feature = "time-zone")]
    cases.compile_fail("tests/zones/*.rs");
}
