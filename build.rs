//! Generates the framed wire's messages from `src/wire/keyway.proto`, without protoc.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let proto = "src/wire/keyway.proto";
    println!("cargo:rerun-if-changed={proto}");
    let descriptors = protox::compile([proto], ["src/wire"])?;
    prost_build::Config::new().bytes(["."]).compile_fds(descriptors)?;
    Ok(())
}
