#include "backends/qemu/stub_control.h"

#include <doctest/doctest.h>

using namespace exo::qemu;

TEST_CASE("parse_stub_device: QEMU's filenames of the chardev gdb") {
    const auto idle = parse_stub_device("gdb", "disconnected:tcp:127.0.0.1:1234,server=on");
    REQUIRE(idle);
    CHECK_FALSE(idle->connected);
    CHECK(idle->device == "tcp:127.0.0.1:1234,server=on,wait=off");
    const auto used = parse_stub_device("gdb", "tcp:127.0.0.1:1234,server=on <-> 127.0.0.1:33333");
    REQUIRE(used);
    CHECK(used->connected);
    CHECK(used->device == "tcp:127.0.0.1:1234,server=on,wait=off");
    CHECK(parse_stub_device("gdb", "disconnected:unix:/x/g.sock,server=on")->device ==
          "unix:/x/g.sock,server=on,wait=off");
    CHECK_FALSE(parse_stub_device("charmonitor", "unix:/x/monitor.sock,server=on"));
}

TEST_CASE("socket_directory") {
    CHECK(socket_directory("unix:/var/lib/libvirt/qemu/domain-1-a/monitor.sock,server=on") ==
          "/var/lib/libvirt/qemu/domain-1-a");
    CHECK(socket_directory("disconnected:unix:/q.sock,server=on") == "/");
    CHECK(socket_directory("tcp:127.0.0.1:1,server=on").empty());
    CHECK(socket_directory("unix:/x/client.sock").empty());
    CHECK(socket_directory("unix:relative.sock,server=on").empty());
    CHECK(socket_directory("file").empty());
}
