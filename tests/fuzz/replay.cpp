// Stands in for libFuzzer: runs the target once on each file of the folder that is given, and on nothing.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "fuzz.h"

int main(int argc, char** argv) {
    if (argc != 2) return std::fputs("usage: fuzz_NAME FOLDER\n", stderr), 2;
    LLVMFuzzerTestOneInput(nullptr, 0);
    int replayed = 0;
    std::error_code error;
    for (const auto& entry : std::filesystem::directory_iterator(argv[1], error)) {
        std::ifstream file(entry.path(), std::ios::binary);
        const std::string bytes{std::istreambuf_iterator<char>(file), {}};
        std::printf("%s\n", entry.path().c_str());
        std::fflush(stdout);  // the last line says what a crash is due to
        LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
        ++replayed;
    }
    if (replayed == 0) return std::fprintf(stderr, "%s: no seeds\n", argv[1]), 1;
    return 0;
}
