//! The file itself: what it needs from a host, and its size.

use tollgate_second_host::Artifact;

/// What `proxy_abi_version_0_2_1` hosts offer under WASI.
const WASI: [&str; 8] = [
    "args_get",
    "args_sizes_get",
    "clock_time_get",
    "environ_get",
    "environ_sizes_get",
    "fd_write",
    "proc_exit",
    "random_get",
];

#[test]
fn imports_only_what_every_host_has() {
    let foreign: Vec<_> = Artifact::get()
        .imports()
        .into_iter()
        .filter(|(module, name)| match module.as_str() {
            "env" => !name.starts_with("proxy_"),
            "wasi_snapshot_preview1" => !WASI.contains(&name.as_str()),
            _ => true,
        })
        .collect();
    assert_eq!(foreign, []);
}

#[test]
fn speaks_the_abi() {
    let exports = Artifact::get().exports();
    let versions: Vec<_> = exports
        .iter()
        .filter(|name| name.starts_with("proxy_abi_version_"))
        .collect();
    assert_eq!(versions, ["proxy_abi_version_0_2_1"]);
}

#[test]
fn is_at_most_900_kilobytes() {
    let size = Artifact::get().bytes.len();
    assert!(size <= 900_000, "{size} bytes");
}

/// A name of an algorithm that verifies nothing, or decrypts: the module has no use for it.
#[test]
fn names_no_algorithm_with_a_shared_secret() {
    let module = &Artifact::get().bytes;
    let holds = |word: &str| {
        module
            .windows(word.len())
            .any(|part| part == word.as_bytes())
    };
    for word in ["RS256", "PS512", "ES384"] {
        assert!(holds(word), "{word}: are names kept in another way?");
    }
    for word in [
        "HS256", "HS384", "HS512", "RSA-OAEP", "RSA1_5", "A128KW", "A256GCM", "A128CBC", "ECDH-ES",
    ] {
        assert!(!holds(word), "{word}");
    }
}
