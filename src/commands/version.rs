//! `version`: the version, and what the program was built from.

const VERSION: &str = concat!("aci-sync ", env!("CARGO_PKG_VERSION"), "\n");

/// `--version`: one line.
pub fn line() -> &'static str {
    VERSION
}

/// `version`; `build.rs` knows what cargo does not.
pub fn text() -> String {
    let (commit, rustc) = (env!("BUILD_COMMIT"), env!("BUILD_RUSTC"));
    let linked = if cfg!(target_feature = "crt-static") { "static" } else { "dynamic" };
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let openssl = openssl::version::version();
    format!("{VERSION}commit  {commit}\ntarget  {target}, {linked}\nrustc   {rustc}\nopenssl {openssl}\n")
}
