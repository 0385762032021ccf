//! Effect: compiles the kernel half (package mesh-ebpf) to `OUT_DIR/mesh-bpf.o`.
//!
//! It needs a compiler with a core library for BPF, and bpf-linker built on the same LLVM. Where
//! one is missing, or `MESH_EBPF_SKIP=1` is set, the object is an empty file and `cfg(mesh_ebpf_stub)`
//! is set: everything else still builds, and the agent falls back to its nft data plane.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, exit},
};

/// The compiler that Debian's package rustc-web installs.
const SYSTEM_RUSTC: &str = "/usr/bin/rustc";

/// What a build of the kernel half needs.
struct Toolchain {
    rustc: PathBuf,
    linker: PathBuf,
    /// The compiler has the sources of the core library only: it is compiled along.
    build_core: bool,
}

fn main() {
    let root = PathBuf::from(var("CARGO_MANIFEST_DIR")).join("..");
    let object = PathBuf::from(var("OUT_DIR")).join("mesh-bpf.o");
    println!("cargo::rustc-check-cfg=cfg(mesh_ebpf_stub)");
    println!("cargo::rerun-if-env-changed=MESH_EBPF_SKIP");
    for input in ["mesh-agent/build.rs", "mesh-ebpf/src", "mesh-ebpf/Cargo.toml", "Cargo.lock"] {
        watch(&root.join(input));
    }
    let skip = env::var("MESH_EBPF_SKIP").is_ok_and(|value| !["", "0", "false"].contains(&value.as_str()));
    let outcome = if skip {
        write_stub(&object, "MESH_EBPF_SKIP is set. Unset it to build with eBPF")
    } else {
        match find_toolchain() {
            Ok(toolchain) => compile(&toolchain, &root, &object),
            Err(missing) => write_stub(
                &object,
                &format!("{missing} is missing. To install what it needs, run: cargo xtask setup"),
            ),
        }
    };
    if let Err(error) = outcome {
        eprintln!("mesh-agent/build.rs: {error}");
        exit(1);
    }
}

/// An empty object, and one line that says so.
fn write_stub(object: &Path, why: &str) -> Result<(), String> {
    println!("cargo::warning=built without the eBPF data plane: {why}");
    println!("cargo::rustc-cfg=mesh_ebpf_stub");
    // What an installation changes; then the next build tries again. Absent paths are not named,
    // because Cargo runs a build script every time when one of its inputs does not exist.
    watch(Path::new("/var/lib/dpkg/status"));
    if let Some(bin) = cargo_bin() {
        watch(&bin);
    }
    fs::write(object, []).map_err(|error| format!("cannot write {}: {error}", object.display()))
}

/// Finds the compiler and the linker, or names what is missing.
fn find_toolchain() -> Result<Toolchain, String> {
    let linker = find_linker().ok_or("bpf-linker")?;
    let target = bpf_target()?;
    let system = PathBuf::from(SYSTEM_RUSTC);
    let cargos = PathBuf::from(var("RUSTC"));
    for rustc in [&system, &cargos] {
        let libs = sysroot(rustc).map(|root| root.join("lib/rustlib"));
        if libs.is_some_and(|libs| has_core(&libs, &target) && has_core(&libs, &host())) {
            return Ok(Toolchain { rustc: rustc.clone(), linker, build_core: false });
        }
    }
    if sysroot(&cargos).is_some_and(|root| root.join("lib/rustlib/src/rust/library/core").exists()) {
        return Ok(Toolchain { rustc: cargos, linker, build_core: true });
    }
    Err(format!("a Rust core library for {target} (Debian: libstd-rust-web-dev-bpf, rustup: rust-src)"))
}

/// Runs a second cargo for the BPF target.
fn compile(toolchain: &Toolchain, root: &Path, object: &Path) -> Result<(), String> {
    watch(&toolchain.linker);
    watch(&toolchain.rustc);
    let target = bpf_target()?;
    // The outer cargo holds the lock of its own target directory until this script ends.
    let target_dir = PathBuf::from(var("OUT_DIR")).join("bpf-target");
    let mut flags = OsString::from("-Clinker=");
    flags.push(&toolchain.linker);
    // Otherwise each memset is a loop over bytes: a third of what a packet costs.
    let in_words = "-Clink-arg=--disable-expand-memcpy-in-order".into();
    for flag in ["-Clink-arg=--btf".into(), in_words, "-Cdebuginfo=2".into(), bpf_target_arch()] {
        flags.push("\x1f");
        flags.push(flag);
    }

    let mut cargo = Command::new(var("CARGO"));
    cargo
        .current_dir(root)
        .args(["build", "--locked", "--release", "--package=mesh-ebpf", "--bin=mesh-bpf"])
        .arg(format!("--target={target}"))
        .arg("--target-dir")
        .arg(&target_dir);
    if toolchain.build_core {
        cargo.arg("-Zbuild-std=core");
    }
    forget_outer_build(&mut cargo);
    // The BPF target is not in the stable promise of the compiler. The key is set here and nowhere
    // else: crates of the host probe the compiler, and would switch to unstable features.
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("RUSTC", &toolchain.rustc)
        .env("CARGO_ENCODED_RUSTFLAGS", flags)
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort");

    let status =
        cargo.status().map_err(|error| format!("cannot start {}: {error}", var("CARGO").display()))?;
    if !status.success() {
        return Err(format!(
            "the kernel half did not compile ({status}; its messages are above).\n\
             Compiler: {}, linker: {}. They must be built on the same LLVM: `cargo xtask setup` installs \
             a pair that fits. To build without eBPF, set MESH_EBPF_SKIP=1.",
            toolchain.rustc.display(),
            toolchain.linker.display()
        ));
    }
    let built = target_dir.join(&target).join("release/mesh-bpf");
    fs::copy(&built, object)
        .map(drop)
        .map_err(|error| format!("cannot copy {} to {}: {error}", built.display(), object.display()))
}

/// What the outer cargo (or clippy, or a coverage tool) set for its own compilation must not reach
/// the inner one. The empty wrappers also override those of a user's cargo configuration.
fn forget_outer_build(cargo: &mut Command) {
    for (key, _) in env::vars_os() {
        let name = key.to_string_lossy();
        let outer =
            ["RUSTFLAGS", "RUSTDOC", "RUSTDOCFLAGS", "CLIPPY_ARGS", "CLIPPY_CONF_DIR", "TARGET", "HOST"]
                .contains(&name.as_ref())
                || [
                    "CARGO_BUILD_",
                    "CARGO_CFG_",
                    "CARGO_FEATURE_",
                    "CARGO_PKG_",
                    "CARGO_PROFILE_",
                    "CARGO_TARGET_",
                    "DEP_",
                ]
                .iter()
                .any(|prefix| name.starts_with(prefix));
        if outer {
            cargo.env_remove(&key);
        }
    }
    cargo.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
}

fn bpf_target() -> Result<String, String> {
    match var("CARGO_CFG_TARGET_ENDIAN").to_str() {
        Some("little") => Ok("bpfel-unknown-none".to_owned()),
        Some("big") => Ok("bpfeb-unknown-none".to_owned()),
        other => Err(format!("a BPF target for a machine of byte order {other:?}")),
    }
}

/// Tells aya-ebpf which machine's register layout the programs will meet.
fn bpf_target_arch() -> String {
    let arch = var("CARGO_CFG_TARGET_ARCH");
    let arch = arch.to_string_lossy();
    format!("--cfg=bpf_target_arch=\"{arch}\"")
}

fn host() -> String {
    var("HOST").to_string_lossy().into_owned()
}

fn sysroot(rustc: &Path) -> Option<PathBuf> {
    let output = Command::new(rustc).args(["--print", "sysroot"]).output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !path.trim().is_empty()).then(|| PathBuf::from(path.trim()))
}

fn has_core(rustlib: &Path, target: &str) -> bool {
    let Ok(libs) = fs::read_dir(rustlib.join(target).join("lib")) else {
        return false;
    };
    libs.flatten().any(|lib| {
        let name = lib.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    dirs.extend(cargo_bin());
    dirs.into_iter().map(|dir| dir.join("bpf-linker")).find(|linker| linker.is_file())
}

/// Where `cargo install` puts programs; `PATH` does not always name it, under sudo for example.
fn cargo_bin() -> Option<PathBuf> {
    let home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))?;
    Some(home.join("bin"))
}

/// Names an input to Cargo, if it exists.
fn watch(path: &Path) {
    if path.exists() {
        println!("cargo::rerun-if-changed={}", path.display());
    }
}

/// A variable that Cargo always sets for build scripts.
fn var(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| {
        eprintln!("mesh-agent/build.rs: the variable {name} is not set. Run it through cargo.");
        exit(1)
    })
}
