//! Machines that could have other CPUs than this one.

/// With this list of possible CPUs, as far as this thread sees.
pub fn with_possible_cpus<T: Send>(list: &str, run: impl FnOnce() -> T + Send) -> T {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, format!("{list}\n")).expect("the list");
    let path = std::ffi::CString::new(file.path().as_os_str().as_encoded_bytes()).expect("no NUL");
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let none = std::ptr::null();
            let done = |what: &str, result: libc::c_int| {
                assert_eq!(result, 0, "{what}: {}", std::io::Error::last_os_error());
            };
            // SAFETY: strings that end with NUL; the mounts are of this thread's own namespace.
            unsafe {
                done("unshare", libc::unshare(libc::CLONE_NEWNS));
                let private = libc::MS_REC | libc::MS_PRIVATE;
                done("make private", libc::mount(none, c"/".as_ptr(), none, private, none.cast()));
                let possible = c"/sys/devices/system/cpu/possible".as_ptr();
                done("bind", libc::mount(path.as_ptr(), possible, none, libc::MS_BIND, none.cast()));
            }
            run()
        });
        thread.join().expect("the thread")
    })
}

/// How many CPUs this machine could have, if their numbers leave none out.
pub fn possible_cpus() -> u32 {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").expect("the list");
    let last = list.trim().strip_prefix("0-").map_or(0, |last| last.parse().expect("a number"));
    last + 1
}
