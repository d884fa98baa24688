# One image for agent and reconciler: one static program, no shell, nothing else. `scripts/image` builds it with
# buildah; docker build does as well.
ARG BUILDER=docker.io/library/rust:1.95-slim-bookworm

FROM ${BUILDER} AS builder
# clang compiles the BPF programs; libelf and zlib are linked in. A builder that has them installs nothing.
RUN command -v clang-19 >/dev/null || { \
      apt-get update && \
      apt-get install -y --no-install-recommends ca-certificates clang-19 libelf-dev make pkg-config zlib1g-dev && \
      rm -rf /var/lib/apt/lists/*; \
    }
ARG PROFILE=release
ENV RUSTFLAGS="-C target-feature=+crt-static"
WORKDIR /build
COPY . .
# With --target the flags are not those of build scripts and macros, which cannot be static.
RUN --mount=type=cache,id=kernel-gossip-target,target=/build/target \
    host=$(rustc -vV | sed -n 's/^host: //p') && \
    export LIBBPF_SYS_LIBRARY_PATH=/usr/lib/$(gcc -print-multiarch) && \
    cargo build --locked --profile "$PROFILE" --features static --target "$host" && \
    case $PROFILE in dev) dir=debug ;; *) dir=$PROFILE ;; esac && \
    install -D "target/$host/$dir/kernel-gossip" /out/kernel-gossip && \
    strip --strip-debug /out/kernel-gossip

FROM scratch
# Roots for OTLP over TLS to a receiver outside the cluster.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /out/kernel-gossip /kernel-gossip
# The reconciler's uid; the agent's DaemonSet sets 0 (k8s/base/agent.yaml).
USER 65532:65532
ENTRYPOINT ["/kernel-gossip"]
