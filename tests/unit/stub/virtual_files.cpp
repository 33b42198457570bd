#include "stub/virtual_files.h"

#include <array>

#include <doctest/doctest.h>

using namespace exo;
using namespace exo::stub;

namespace {

std::shared_ptr<const PublishedFile> published(std::string_view text) {
    auto content = MemoryFile::create("test");
    REQUIRE(content);
    REQUIRE(content->append(std::as_bytes(std::span{text})));
    return std::make_shared<const PublishedFile>(PublishedFile{"/exogdb/test", std::move(*content)});
}

std::string read_at(const PublishedFile& file, std::uint64_t offset, std::size_t size) {
    std::string out(size, '?');
    const auto count = file.content.read(offset, std::as_writable_bytes(std::span{out}));
    REQUIRE(count);
    return out.substr(0, *count);
}

}  // namespace

TEST_CASE("memory file: pieces are one file, and there is nothing past its end") {
    const auto file = published("first");
    CHECK(file->content.size() == 5);
    CHECK(read_at(*file, 0, 100) == "first");
    CHECK(read_at(*file, 3, 1) == "s");
    CHECK(read_at(*file, 5, 8).empty());
    CHECK(read_at(*file, UINT64_MAX, 8).empty());
}

TEST_CASE("open files: a file lives while it is open; descriptors are used again") {
    OpenFiles files;
    auto file = published("text");
    const std::weak_ptr<const PublishedFile> watched = file;
    const auto first = files.open(file);
    const auto second = files.open(std::move(file));
    REQUIRE(first);
    REQUIRE(second);
    CHECK(*first != *second);
    CHECK(files.close(*first));
    CHECK_FALSE(files.close(*first));
    CHECK(files.find(*first) == nullptr);
    CHECK(read_at(*files.find(*second)->published, 0, 4) == "text");
    CHECK(files.close(*second));
    CHECK(watched.expired());
    CHECK(files.find(OpenFiles::most) == nullptr);
    CHECK_FALSE(files.close(UINT64_MAX));

    for (std::size_t i = 0; i < OpenFiles::most; ++i) CHECK(files.open(published("x")));
    CHECK_FALSE(files.open(published("one too many")));
}

TEST_CASE("file content: patches lie over what is read, wherever a read begins and ends") {
    auto content = MemoryFile::create("test");
    REQUIRE(content);
    const std::string_view text = "0123456789";
    REQUIRE(content->append(std::as_bytes(std::span{text})));
    const std::string_view over = "abc";
    const auto bytes = std::as_bytes(std::span{over});
    content->patch({3, {bytes.begin(), bytes.end()}});
    const PublishedFile file{"/exogdb/test", std::move(*content)};
    CHECK(read_at(file, 0, 10) == "012abc6789");
    CHECK(read_at(file, 4, 1) == "b");
    CHECK(read_at(file, 5, 3) == "c67");
    CHECK(read_at(file, 0, 4) == "012a");
    CHECK(read_at(file, 6, 4) == "6789");
}
