# shellcheck shell=bash
# Sourced by .ci/run and scripts/pre-commit at the top of the repository: the looks at files that need no build.

# A few at a time, on every CPU: each file is read with all that it sources.
shell_scripts() {
  git grep -lE '^#!.*\b(ba|busybox )?sh\b|^# shellcheck shell=' -- . ':!*.md' |
    xargs -P "$(nproc)" -n 4 shellcheck -x -P scripts -P tests/testbed
}

bpf_format() {
  git ls-files 'bpf/*.c' 'bpf/*.h' ':!bpf/vmlinux' | xargs -r clang-format-19 --dry-run --Werror
}

# rust_format: cargo fmt finds no file whose `mod` a macro writes: the kinds of signal, one a file.
rust_format() {
  cargo fmt --check && rustfmt --edition 2024 --check src/signals/kinds/*.rs
}

# go_format: by the gofmt on the PATH.
go_format() {
  local files
  files=$(gofmt -l tests/testbed)
  [ -z "$files" ] || { echo "not as gofmt has it: $files" >&2; return 1; }
}
