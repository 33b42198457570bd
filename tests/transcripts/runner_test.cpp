// The runner itself: what it must find.
#include <doctest/doctest.h>
#include <spdlog/spdlog.h>

#include "tests/support/transcript.h"

using exo::test::play_transcript;
using exo::test::transcript_matches;
using exo::test::TranscriptResult;

namespace {

TranscriptResult play(const std::string& text) {
    spdlog::set_level(spdlog::level::off);
    return play_transcript(text);
}

bool passes(const std::string& text) { return play(text).failures.empty(); }

}  // namespace

TEST_CASE("patterns") {
    CHECK(transcript_matches("OK", "OK"));
    CHECK_FALSE(transcript_matches("OK", "OKx"));
    CHECK_FALSE(transcript_matches("OK", ""));
    CHECK(transcript_matches("T05{{*}}swbreak:;", "T05thread:1;swbreak:;"));
    CHECK_FALSE(transcript_matches("T05{{*}}swbreak:;", "T05thread:1;"));
    CHECK(transcript_matches("a{{[0-9]+}}b{{*}}", "a12b"));
    CHECK_FALSE(transcript_matches("a{{[0-9]+}}b", "ab"));
    CHECK_FALSE(transcript_matches("a{{[0-9]+}}b", "axb"));
    // A literal that also stands within the part before it.
    CHECK(transcript_matches("{{[ab]+}}b;", "abab;"));
    CHECK(transcript_matches("core:0;{{registers}}swbreak:;", "core:0;10:0000000000000000;07:00;swbreak:;"));
    CHECK_FALSE(transcript_matches("core:0;{{registers}}swbreak:;", "core:0;swbreak:;"));
}

TEST_CASE("a dialogue") {
    CHECK(passes("-> qC\n<- QCp0.1\n") == false);
    CHECK(passes("# comment\n\n-> qC\n<- QC1\n"));
    CHECK_FALSE(passes("-> qC\n"));                         // a reply too many
    CHECK_FALSE(passes("-> qC\n<- QC1\n<- QC1\n"));         // one too few
    CHECK_FALSE(passes("-> qC\n<- QC2\n"));                 // another
    CHECK_FALSE(passes("-> qC\n-> qC\n<- QC1\n<- QC1\n"));  // in another order
    CHECK_FALSE(passes("what is this\n"));
    CHECK_FALSE(passes("@no-such-directive\n"));
    CHECK_FALSE(passes("-> vCont;c\n<- T05{{*}}\n"));                 // no stop comes
    CHECK_FALSE(passes("-> vCont;c\n@stop cause=step\n"));            // one that is not expected
    CHECK_FALSE(passes("-> vCont;c\n@stop cause=step\n@running\n"));  // nor this
    CHECK(passes("-> vCont;c\n@running\n"));
    CHECK_FALSE(passes("-> vCont;c\n-> g\n<- {{*}}\n"));  // would wait
    CHECK_FALSE(passes("-> k\n<- OK\n"));
    CHECK(passes("-> k\n@silent\n@closed\n"));
    CHECK_FALSE(passes("-> qC\n<- QC1\n@silent\n"));
    CHECK_FALSE(passes("-> qC\n<- QC1\n@closed\n"));
}

TEST_CASE("what the machine saw") {
    CHECK(passes("-> qC\n<- QC1\n@log attach\n@vcpus\n") == false);
    CHECK(passes("-> qC\n<- QC1\n@log attach\n"));
    CHECK(passes("-> qC\n<- QC1\n@log attach\n-> qC\n<- QC1\n@log\n"));
    CHECK_FALSE(passes("-> qC\n<- QC1\n@log\n"));
    CHECK_FALSE(passes("-> qC\n<- QC1\n@log detach\n"));
    CHECK_FALSE(passes("-> qC\n<- QC1\n@log attach\n@log detach\n"));
    CHECK_FALSE(passes("-> vCont;c\n@log attach\n@running\n"));  // and it resumed
    CHECK_FALSE(passes("@memory 1000 aa\n-> qC\n<- QC1\n@expect-memory 1000 ab\n"));
    CHECK(passes("@memory 1000 aa\n-> qC\n<- QC1\n@expect-memory 1000 aa\n"));
}

TEST_CASE("escapes and captures") {
    CHECK(passes("@memory 1000 5c00ff\n-> qSupported:swbreak+\n<- {{*}}\n-> x1000,3\n<- b\\\\\\x00\\xff\n"));
    CHECK(passes("-> qC\n<- QC{{id:=[0-9a-f]+}}\n-> Hg{{=id}}\n<- OK\n"));
    CHECK_FALSE(passes("-> qC\n<- {{*}}\n-> Hg{{=id}}\n<- OK\n"));
}

TEST_CASE("what is rewritten passes") {
    const std::string text =
        "# a stop\n-> Z0,1000,1\n@log\n-> vCont;c\n@stop cause=breakpoint rip=1000\n<- ?\n@log x\n-> qC\n"
        "# binary\n-> x0,2\n-> vMustReplyEmpty\n<- {{OK}}\n";
    const TranscriptResult first = play(text);
    CHECK_FALSE(first.failures.empty());
    const TranscriptResult second = play(first.rewritten);
    CHECK(second.failures == std::vector<std::string>{});
    CHECK(second.rewritten == first.rewritten);
    CHECK(first.rewritten.find("{{registers}}") != std::string::npos);
    CHECK(first.rewritten.find("-> vMustReplyEmpty\n<-\n") != std::string::npos);
}
