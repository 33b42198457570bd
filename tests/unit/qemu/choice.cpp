#include "backends/choice.h"

#include <doctest/doctest.h>

using namespace exo;

namespace {

const Error taken{Errc::busy, "QEMU already has a gdb client"};
const Error refused{Errc::denied, "tracing thread 7 of the VMM: Operation not permitted; run as root"};

struct Row {
    const char* what;
    QemuFacts facts;
    const char* automatic;  // what is chosen, and a word of the reason
    const char* word;
    bool kvm_can;  // when it is asked for
};

// The first thing that is in the way is the reason.
const Row rows[] = {
    {"KVM, runs, may be traced",
     {.kvm = true, .running = true, .state = "running"},
     "kvm:",
     "can be traced",
     true},
    {"no KVM", {.kvm = false, .running = true, .state = "running"}, "qemu ", "without KVM", false},
    {"no KVM, paused", {.kvm = false, .running = false, .state = "paused"}, "qemu ", "without KVM", false},
    {"paused", {.kvm = true, .running = false, .state = "paused"}, "qemu ", "(paused)", true},
    {"not begun", {.kvm = true, .running = false, .state = "prelaunch"}, "qemu ", "(prelaunch)", true},
    {"incoming migration",
     {.kvm = true, .running = false, .state = "inmigrate"},
     "qemu ",
     "(inmigrate)",
     true},
    {"another debugger",
     {.kvm = true, .running = true, .state = "running", .stub_in_use = taken},
     "qemu ",
     "gdb client",
     false},
    {"another debugger has stopped it",
     {.kvm = true, .running = false, .state = "paused", .stub_in_use = taken, .untraceable = refused},
     "qemu ",
     "gdb client",
     false},
    {"not permitted",
     {.kvm = true, .running = true, .state = "running", .untraceable = refused},
     "qemu ",
     "Operation not permitted; run as root",
     false},
    {"not permitted, paused",
     {.kvm = true, .running = false, .state = "paused", .untraceable = refused},
     "qemu ",
     "not permitted",
     false},
};

}  // namespace

TEST_CASE("choice of the backend: auto") {
    for (const auto& row : rows) {
        CAPTURE(row.what);
        const auto choice = choose_backend(BackendWish::automatic, row.facts);
        REQUIRE(choice);
        const auto text = choice->text();
        CAPTURE(text);
        CHECK(text.starts_with(row.automatic));
        CHECK(text.find(row.word) != std::string::npos);
        CHECK(text.find('\n') == std::string::npos);
        CHECK(choice->kvm == text.starts_with("kvm"));
        CHECK((choice->kvm || text.find("not kvm") != std::string::npos));
    }
}

TEST_CASE("choice of the backend: what was asked for, or an error that says why not") {
    for (const auto& row : rows) {
        CAPTURE(row.what);
        const auto stub = choose_backend(BackendWish::qemu, row.facts);
        REQUIRE(stub);
        CHECK_FALSE(stub->kvm);
        const auto kvm = choose_backend(BackendWish::kvm, row.facts);
        REQUIRE(kvm.has_value() == row.kvm_can);
        if (kvm) {
            CHECK(kvm->kvm);
            continue;
        }
        CHECK(kvm.error().message.starts_with("--backend kvm: "));
        CHECK(kvm.error().message.find(row.word) != std::string::npos);
    }
    CHECK(choose_backend(BackendWish::kvm, {}).error().code == Errc::unsupported);
}

TEST_CASE("choice of the backend: KVM's that did not open") {
    const auto choice = fall_back({Errc::not_found, "no guest memory was found"});
    CHECK_FALSE(choice.kvm);
    CHECK(choice.text().ends_with("not kvm: no guest memory was found"));
}
