# The controller. The filter is not in it: see README.md on how it is built.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package versionflag

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/versionflag /versionflag
COPY --from=build /src/LICENSE /LICENSE
USER 65532:65532
EXPOSE 7070 7071 7072
ENTRYPOINT ["/versionflag"]
