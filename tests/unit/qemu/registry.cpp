#include "backends/registry.h"

#include <doctest/doctest.h>

using namespace exo;

TEST_CASE("TargetUri") {
    const auto domain = TargetUri::parse("libvirt:debian");
    REQUIRE(domain);
    CHECK(domain->scheme == "libvirt");
    CHECK(domain->rest == "debian");
    const auto word = TargetUri::parse("debian-12");
    REQUIRE(word);
    CHECK(word->text() == "libvirt:debian-12");
    CHECK(word->bare);
    CHECK_FALSE(domain->bare);
    const auto xen = TargetUri::parse("xen:7");
    REQUIRE(xen);
    CHECK(xen->scheme == "xen");
    CHECK(xen->rest == "7");
    const auto socket = TargetUri::parse("qemu:/run/a:b.sock");
    REQUIRE(socket);
    CHECK(socket->rest == "/run/a:b.sock");
}

TEST_CASE("TargetUri: an unknown scheme is answered with those that there are") {
    for (const char* text : {"vmware:x", "libvirt:", "", "qemu:"}) {
        const auto uri = TargetUri::parse(text);
        REQUIRE_FALSE(uri);
        CHECK(uri.error().code == Errc::bad_request);
        CHECK(uri.error().message.find("libvirt:NAME qemu:QMP_SOCKET") != std::string::npos);
        CHECK(uri.error().message.find('\n') == std::string::npos);
    }
}

TEST_CASE("what cannot be opened says why in one line") {
    const auto missing = open_target({"qemu", "/nonexistent/qmp.sock"}, {});
    REQUIRE_FALSE(missing);
    CHECK(missing.error().code == Errc::not_found);
    CHECK(missing.error().message.find("/nonexistent/qmp.sock") != std::string::npos);
    const auto file = open_target({"qemu", "/etc/passwd"}, {});
    REQUIRE_FALSE(file);
    CHECK(file.error().code == Errc::not_found);
    const auto checks = diagnose_target({"qemu", "/nonexistent/qmp.sock"}, {});
    REQUIRE(checks.size() == 1);
    CHECK_FALSE(checks[0].ok);
    CHECK_FALSE(checks[0].remedy.empty());
}

TEST_CASE("where there is no Xen, that is what is said") {
    std::vector<Error> errors;
    for (const auto& guest : list_targets({}, errors)) CHECK_FALSE(guest.target.starts_with("xen:"));
    for (const auto& error : errors) CHECK(error.message.find("Xen") == std::string::npos);
    const auto opened = open_target({"xen", "debian"}, {});
    REQUIRE_FALSE(opened);
    CHECK(opened.error().code == Errc::unsupported);
    CHECK(opened.error().message.find('\n') == std::string::npos);
    const auto checks = diagnose_target({"xen", "debian"}, {});
    REQUIRE(checks.size() == 1);
    CHECK_FALSE(checks[0].ok);
    CHECK_FALSE(checks[0].remedy.empty());
}

TEST_CASE("kvm:PID has one backend") {
    const TargetUri uri{"kvm", "1"};
    const OpenOptions options{.backend = BackendWish::qemu};
    const auto opened = open_target(uri, options);
    REQUIRE_FALSE(opened);
    CHECK(opened.error().code == Errc::bad_request);
    CHECK(opened.error().message.find("--backend") != std::string::npos);
    const auto checks = diagnose_target(uri, options);
    REQUIRE(checks.size() == 1);
    CHECK_FALSE(checks[0].ok);
    CHECK_FALSE(recover_target(uri, options));
    const auto meant = open_target(uri, {.backend = BackendWish::kvm});
    REQUIRE_FALSE(meant);
    CHECK(meant.error().code != Errc::bad_request);
}

TEST_CASE("a guest that two backends list is one row") {
    std::vector<GuestSummary> all{{.target = "libvirt:a", .name = "a", .state = "running", .pid = 7},
                                  {.target = "libvirt:b", .name = "b", .state = "shut off", .pid = {}}};
    add_guests(all, {{.target = "kvm:7", .name = "qemu", .state = "unknown", .pid = 7},
                     {.target = "kvm:8/3", .name = "vmm", .state = "unknown", .pid = 8},
                     {.target = "kvm:8/9", .name = "vmm", .state = "unknown", .pid = 8}});
    std::string targets;
    for (const auto& guest : all) targets += guest.target + " ";
    CHECK(targets == "libvirt:a libvirt:b kvm:8/3 kvm:8/9 ");
}
