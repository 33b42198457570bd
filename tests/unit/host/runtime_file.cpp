#include "backends/host/runtime_file.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

using namespace exo;

TEST_CASE("with a runtime file go the drafts of those that were killed over it, and of nobody else") {
    const pid_t gone = ::fork();
    if (gone == 0) ::_exit(0);
    ::waitpid(gone, nullptr, 0);
    const auto name = "unit-" + std::to_string(::getpid()) + ".json";
    const auto directory = runtime_directory();
    REQUIRE(directory);
    const auto path = *directory + "/" + name;
    const auto draft_of = [&](const std::string& writer) { return path + "." + writer; };
    REQUIRE(write_runtime_file(name, "{}"));
    CHECK(std::filesystem::exists(path));
    for (const auto& writer : {std::to_string(gone), std::to_string(::getpid()), std::string{"other"}})
        std::ofstream{draft_of(writer)} << "{";
    remove_runtime_file(name);
    CHECK_FALSE(std::filesystem::exists(path));
    CHECK_FALSE(std::filesystem::exists(draft_of(std::to_string(gone))));
    CHECK(std::filesystem::remove(draft_of(std::to_string(::getpid()))));
    CHECK(std::filesystem::remove(draft_of("other")));
}
