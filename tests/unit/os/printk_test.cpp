#include "os-awareness/linux/printk.h"

#include <doctest/doctest.h>

#include "tests/support/printk_builder.h"

namespace {

using namespace exo;
using namespace exo::test;
using Texts = std::vector<std::string>;

constexpr std::uint64_t last_id = ~std::uint64_t{0} >> 2;

// struct printk_log as it always was, with and without CONFIG_PRINTK_CALLER.
struct OldLog {
    static constexpr VirtualAddress memory{0xffff'8880'0010'0000};
    static constexpr VirtualAddress buffer = memory + 0x1000;
    FlatSpace space{memory, 0x4000};
    bool callers = false;

    struct Variables {
        std::uint64_t log_buf = raw(buffer);
        std::uint32_t log_buf_len = 512, first_idx = 0, next_idx = 0, pad = 0;
        std::uint64_t first_seq = 7;
    } variables;

    std::uint32_t put(std::uint32_t at, std::string_view text, std::string_view dict = {}) {
        const std::uint32_t header = callers ? 20 : 16;
        const auto len = static_cast<std::uint32_t>((header + text.size() + dict.size() + 3) / 4 * 4);
        space.put(buffer + at, std::uint64_t{5'000'000'000} + at);
        space.put(buffer + at + 8, static_cast<std::uint16_t>(len));
        space.put(buffer + at + 10, static_cast<std::uint16_t>(text.size()));
        space.put(buffer + at + 12, static_cast<std::uint16_t>(dict.size()));
        space.put(buffer + at + 14, std::uint8_t{1});
        space.put(buffer + at + 15, std::uint8_t{4 << 5 | 6});
        if (callers) space.put(buffer + at + 16, std::uint32_t{77});
        const auto all = std::string{text}.append(dict);
        for (std::uint32_t i = 0; i < all.size(); ++i) space.put(buffer + at + header + i, all[i]);
        return at + len;
    }
    Result<os::KernelLog> read() {
        space.put(memory, variables);
        os::SymbolTable symbols;
        symbols.add(memory, 'd', "log_buf");
        symbols.add(memory + 8, 'd', "log_buf_len");
        symbols.add(memory + 12, 'd', "log_first_idx");
        symbols.add(memory + 16, 'd', "log_next_idx");
        symbols.add(memory + 24, 'd', "log_first_seq");
        symbols.finish();
        const auto info = os::VmCoreInfo::parse("OSRELEASE=5.4\nSIZE(printk_log)=20\n");
        return os::read_kernel_log({space, symbols, nullptr, callers ? &*info : nullptr});
    }
};

}  // namespace

TEST_CASE("records of the ring buffer, by VMCOREINFO and by BTF") {
    PrintkRing log;
    log.add("first");
    log.add("");
    log.add("two\nlines");
    for (const bool by_btf : {false, true}) {
        const auto read = log.read(by_btf);
        REQUIRE_MESSAGE(read, (read ? "" : read.error().message));
        CHECK(texts(*read) == Texts{"first", "", "two\nlines"});
        CHECK(read->missing.empty());
        const auto& record = read->records.at(2);
        CHECK(record.sequence == 2);
        CHECK(record.time_ns == 1'000'000'002);
        CHECK(record.level == 6);
        CHECK(record.facility == 3);
        REQUIRE(record.caller);
        CHECK(record.caller->cpu);
        CHECK(record.caller->number == 1);
    }
}

TEST_CASE("a log that has nothing in it yet") {
    PrintkRing log;
    const auto read = log.read();
    REQUIRE(read);
    CHECK(read->records.empty());
    CHECK(read->missing.empty());
}

TEST_CASE("the oldest descriptors are used again, and ids go round") {
    PrintkRing log{2, 9, last_id - 1};
    for (const auto* text : {"a", "b", "c", "d", "e", "f"}) log.add(text);
    const auto read = log.read();
    REQUIRE(read);
    CHECK(texts(*read) == Texts{"c", "d", "e", "f"});
    CHECK(read->missing.empty());
}

TEST_CASE("a text that does not fit before the end of the ring is at its beginning") {
    PrintkRing log;
    log.go_to_end(16);
    log.add("longer than that");
    log.add("after it");
    const auto read = log.read();
    REQUIRE(read);
    CHECK(texts(*read) == Texts{"longer than that", "after it"});
}

TEST_CASE("a text that ends just where the ring ends") {
    PrintkRing log;
    bool left_there = false;
    SUBCASE("moved to the beginning") {}
    SUBCASE("left there, as from 6.18 on") { left_there = true; }
    if (left_there) log.fit_at_end();
    log.go_to_end(16);
    log.add("8 bytes.");
    log.add("after it");
    const auto at_end = log.space.read_value<char>(PrintkRing::data + 504);
    REQUIRE(at_end);
    CHECK((*at_end == '8') == left_there);
    const auto read = log.read();
    REQUIRE(read);
    CHECK(texts(*read) == Texts{"8 bytes.", "after it"});
}

TEST_CASE("only records that are whole are taken") {
    PrintkRing log;
    log.add("reusable", FakeState::reusable);
    log.add("finalized");
    log.add("reserved", FakeState::reserved);
    log.add("committed", FakeState::committed);
    const auto read = log.read();
    REQUIRE(read);
    CHECK(texts(*read) == Texts{"finalized", "committed"});
    CHECK(read->missing == Texts{"1 record: being written"});
}

TEST_CASE("what contradicts itself is left out and said") {
    PrintkRing log;
    log.add("before");
    const auto id = log.add("broken");
    log.add("after");
    std::string expected = "1 record: their text is not where their descriptors say";
    SUBCASE("another's block") { log.space.put(PrintkRing::data + 16, id + 1); }
    SUBCASE("no room for it") {
        log.edit<FakeDesc>(log.desc(id), [](FakeDesc& d) { d.begin = d.next = 1; });
    }
    SUBCASE("longer than the ring") {
        log.edit<FakeDesc>(log.desc(id), [](FakeDesc& d) { d.next = d.begin + 4096; });
    }
    SUBCASE("ends before it begins") {
        log.edit<FakeDesc>(log.desc(id), [](FakeDesc& d) { std::swap(d.begin, d.next); });
    }
    SUBCASE("shorter than its own id") {
        log.edit<FakeDesc>(log.desc(id), [](FakeDesc& d) { d.next = d.begin + 8; });
    }
    SUBCASE("the descriptor is another's") {
        log.set_state(id, FakeState::finalized);
        log.edit<FakeDesc>(log.desc(id), [](FakeDesc& d) { d.state_var += 16; });
        expected = "1 record: overwritten while the log was read, or their descriptors are broken";
    }
    const auto read = log.read();
    REQUIRE(read);
    CHECK(texts(*read) == Texts{"before", "after"});
    CHECK(read->missing == Texts{expected});
}

TEST_CASE("a length beyond the block is cut to the block") {
    PrintkRing log;
    const auto id = log.add("12345678");
    log.edit<FakeInfo>(log.info(id), [](FakeInfo& i) { i.text_len = 9999; });
    const auto read = log.read();
    REQUIRE(read);
    CHECK(texts(*read) == Texts{"12345678"});
}

TEST_CASE("a ring that is none is an error, or is read as far as it is one") {
    PrintkRing log;
    log.add("text");
    SUBCASE("size") {
        log.edit<FakeRing>(PrintkRing::ring, [](FakeRing& r) { r.text.size_bits = 60; });
        CHECK(log.read().error().code == Errc::bad_data);
    }
    SUBCASE("pointer") {
        log.edit<FakeRing>(PrintkRing::ring, [](FakeRing& r) { r.desc.descs = 0x1000; });
        CHECK(log.read().error().code == Errc::bad_data);
    }
    SUBCASE("more records than descriptors") {
        log.edit<FakeRing>(PrintkRing::ring, [](FakeRing& r) { r.desc.tail_id -= 100; });
        const auto read = log.read();
        REQUIRE(read);
        CHECK(texts(*read) == Texts{"text"});
        REQUIRE(read->missing.size() == 2);
        CHECK(read->missing[0] == "head_id and tail_id of the log are 101 apart, and it has 16 descriptors");
    }
    SUBCASE("most of it cannot be read") {
        log.edit<FakeRing>(PrintkRing::ring, [](FakeRing& r) { r.text.size_bits = 20; });
        const auto read = log.read();
        REQUIRE(read);
        CHECK(texts(*read) == Texts{"text"});
        CHECK(read->missing ==
              Texts{std::to_string((1 << 20) - 0xc000) + " bytes of the log cannot be read"});
    }
}

TEST_CASE("where nothing tells of a log, the error says what is not there") {
    PrintkRing log;
    os::SymbolTable symbols;
    symbols.finish();
    const auto nothing = os::read_kernel_log({log.space, symbols, nullptr, nullptr});
    CHECK(nothing.error().message ==
          "reading the kernel's log: no symbol prb or log_buf, neither in kallsyms nor in VMCOREINFO");
    os::SymbolTable with_symbol;
    with_symbol.add(PrintkRing::memory, 'd', "prb");
    with_symbol.finish();
    const auto types = os::read_kernel_log({log.space, with_symbol, nullptr, nullptr});
    CHECK(types.error().message ==
          "reading the kernel's log: neither BTF nor VMCOREINFO tells of prb_desc_ring.count_bits");
}

TEST_CASE("records of log_buf") {
    OldLog log;
    SUBCASE("without callers") {}
    SUBCASE("with callers") { log.callers = true; }
    log.variables.next_idx = log.put(log.put(0, "first"), "second", "SUBSYSTEM=pci");
    const auto read = log.read();
    REQUIRE_MESSAGE(read, (read ? "" : read.error().message));
    CHECK(texts(*read) == Texts{"first", "second"});
    CHECK(read->missing.empty());
    const auto& record = read->records.at(0);
    CHECK(record.sequence == 7);
    CHECK(record.time_ns == 5'000'000'000);
    CHECK(record.level == 4);
    CHECK(record.facility == 1);
    CHECK(record.caller.has_value() == log.callers);
    if (record.caller) CHECK((record.caller->number == 77 && !record.caller->cpu));
}

TEST_CASE("log_buf goes round where a record of length 0 is") {
    OldLog log;
    log.variables.first_idx = 400;
    const auto end = log.put(400, "last before the end");
    log.space.put(OldLog::buffer + end + 8, std::uint16_t{0});
    log.variables.next_idx = log.put(0, "first after it");
    const auto read = log.read();
    REQUIRE(read);
    CHECK(texts(*read) == Texts{"last before the end", "first after it"});
    CHECK(read->missing.empty());
}

TEST_CASE("records of log_buf that are none end it, and that is said") {
    OldLog log;
    const auto second = log.put(0, "first");
    log.variables.next_idx = log.put(second, "second");
    SUBCASE("too long") { log.space.put(OldLog::buffer + second + 8, std::uint16_t{2000}); }
    SUBCASE("too short") { log.space.put(OldLog::buffer + second + 8, std::uint16_t{4}); }
    SUBCASE("the text is longer than the record") {
        log.space.put(OldLog::buffer + second + 10, std::uint16_t{100});
    }
    SUBCASE("round again") { log.space.put(OldLog::buffer + second + 8, std::uint16_t{0}); }
    SUBCASE("beyond the end") { log.space.put(OldLog::buffer + second + 8, std::uint16_t{40}); }
    const auto read = log.read();
    REQUIRE(read);
    CHECK(read->records.at(0).text == "first");
    REQUIRE(read->missing.size() == 1);
    CHECK(read->missing[0].starts_with("the records from offset " + std::to_string(second) + " of the log"));
}

TEST_CASE("indexes outside of log_buf are an error") {
    OldLog log;
    SUBCASE("first") { log.variables.first_idx = 512; }
    SUBCASE("next") { log.variables.next_idx = 5000; }
    SUBCASE("size") { log.variables.log_buf_len = 0xffffffff; }
    SUBCASE("pointer") { log.variables.log_buf = 0x1000; }
    CHECK(log.read().error().code == Errc::bad_data);
}
