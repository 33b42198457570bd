// The command line. That wrong usage is one line on stderr is for tests/guest/test_trouble.py to see.
#include "stub/options.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace exo::stub {
namespace {

int parsed(std::vector<std::string> words, Options& options) {
    words.insert(words.begin(), "exogdb");
    std::vector<char*> arguments;
    for (auto& word : words) arguments.push_back(word.data());
    return parse_options(static_cast<int>(arguments.size()), arguments.data(), options);
}

TEST_CASE("an option of a few words takes those, and no other") {
    Options options;
    CHECK(parsed({"serve", "kvm:1", "--os", "none", "--backend", "kvm", "--threads", "vcpus"}, options) ==
          -1);
    CHECK(options.os == os::Choice::none);
    CHECK(options.open.backend == BackendWish::kvm);
    CHECK(options.server.session.threads_are_vcpus);
    for (const char* option : {"--os", "--backend", "--threads"}) {
        CAPTURE(option);
        Options refused;
        CHECK(parsed({"serve", "kvm:1", option, "nonsense"}, refused) == exit_usage);
    }
}

TEST_CASE("a process is wanted by PID or name, and has no vCPUs") {
    Options options;
    CHECK(parsed({"serve", "kvm:1", "--process", "sshd"}, options) == -1);
    CHECK(options.server.session.process == "sshd");
    Options refused;
    CHECK(parsed({"serve", "kvm:1", "--process", "1", "--threads", "vcpus"}, refused) == exit_usage);
}

TEST_CASE("a program is waited for by its name, and by nothing that contradicts it") {
    Options options;
    CHECK(parsed({"serve", "kvm:1", "--wait", "sshd"}, options) == -1);
    CHECK(options.server.wait_for == "sshd");
    for (const std::vector<std::string>& more : {std::vector<std::string>{"--process", "1"},
                                                 {"--threads", "vcpus"},
                                                 {"--os", "none"},
                                                 {"--stdio"}}) {
        CAPTURE(more.front());
        std::vector<std::string> words{"serve", "kvm:1", "--wait", "sshd"};
        words.insert(words.end(), more.begin(), more.end());
        Options refused;
        CHECK(parsed(words, refused) == exit_usage);
    }
    Options multi;
    CHECK(parsed({"serve", "kvm:1", "--multi"}, multi) == -1);
    CHECK(multi.server.session.multi);
    for (const char* option : {"--wait", "--process"}) {
        CAPTURE(std::string{option});
        Options refused;
        CHECK(parsed({"serve", "kvm:1", "--multi", option, "sshd"}, refused) == exit_usage);
    }
    for (const char* name : {"/usr/sbin/sshd", ""}) {
        CAPTURE(std::string{name});
        Options refused;
        CHECK(parsed({"serve", "kvm:1", "--wait", name}, refused) == exit_usage);
    }
}

}  // namespace
}  // namespace exo::stub
