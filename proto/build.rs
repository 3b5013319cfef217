//! Compiles the .proto files with protox, so that building needs no protoc for them.

use std::error::Error;
use std::path::PathBuf;

use prost::Message;

const FILES: [&str; 3] = [
    "evenkeel/v1/state.proto",
    "evenkeel/v1/agent.proto",
    "evenkeel/v1/scheduler.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    // For the reflection service.
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
