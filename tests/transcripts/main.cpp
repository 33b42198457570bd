// Plays the transcripts named on the command line.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

#include <spdlog/spdlog.h>

#include "tests/support/transcript.h"

int main(int argc, char** argv) {
    spdlog::set_level(spdlog::level::off);
    const bool update = std::getenv("UPDATE_TRANSCRIPTS") != nullptr;
    bool passed = argc > 1;
    for (int i = 1; i < argc; ++i) {
        std::ifstream in{argv[i], std::ios::binary};
        const std::string text{std::istreambuf_iterator<char>{in}, {}};
        if (!in) {
            std::cerr << argv[i] << ": cannot be read\n";
            passed = false;
            continue;
        }
        const auto result = exo::test::play_transcript(text);
        for (const std::string& failure : result.failures) std::cerr << argv[i] << ", " << failure << "\n";
        passed = passed && result.failures.empty();
        if (update && result.rewritten != text) std::ofstream{argv[i], std::ios::binary} << result.rewritten;
    }
    return passed ? 0 : 1;
}
