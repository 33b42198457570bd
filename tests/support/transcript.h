// Golden dialogues: what a client sends, what it gets, and what the machine saw of it.
//
// A *.rsp file is read line by line. Text is as on the wire without framing; a byte that is not printable
// ASCII is \xNN, a backslash is \\.
//
//   # text                     a comment; the first ones say which finding the file holds, and its source
//   -> PAYLOAD                 the client sends this
//   <- PAYLOAD                 the next packet it gets. {{regex}} matches a part, {{*}} anything up to what
//                              follows, {{registers}} a stop reply's registers; {{name:=regex}} keeps the
//                              part, and {{=name}} stands for it later, also in a `->` line
//   @WORD …                    a directive; see the table in transcript_directives.cpp
//
// Directives before the first `->` build the machine (@vcpus, @dump, @no …); the client then connects.
// After a packet that resumes, the next `<-` is the stop reply: the machine gives the @stop events in order.
// A notification is `<- %PAYLOAD`. In non-stop mode the guest runs when a `<-` or @running finds nothing to
// send. Each packet must be accounted for: one that no `<-` expects is a failure.
#pragma once

#include <string>
#include <vector>

namespace exo::test {

struct TranscriptResult {
    std::vector<std::string> failures;  // "line 12: …", empty when it passed
    std::string rewritten;              // the file with what was really got, for UPDATE_TRANSCRIPTS
};

TranscriptResult play_transcript(const std::string& text);

// Whether `actual` is what `pattern` (the text of a `<-` line, parts in {{}}) says. For the runner's own
// test.
bool transcript_matches(const std::string& pattern, const std::string& actual);

}  // namespace exo::test
