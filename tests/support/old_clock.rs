//! A machine whose clock stands before 1970, as on a board without a battery.
//!
//! `clock_gettime` is replaced by one that gives a time of long ago, for a program and whatever it
//! starts: its library goes into `LD_PRELOAD`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A day before 1970, for a clock of 2026.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int status = real(id, now);
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE) now->tv_sec = now->tv_sec % 1000 - 86400;
    return status;
}
"#;

/// Builds the library in `folder`; returns its path.
pub(crate) fn build(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    fs::write(&source, SHIM).expect("a file");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(command.status().expect("a C compiler, which SQLite needs, too").success());
    library
}
