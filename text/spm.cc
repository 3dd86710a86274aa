#include "text/spm.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <limits>
#include <locale>
#include <mutex>
#include <new>
#include <sstream>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

namespace sentencepiece
{
namespace logging
{
void SetMinLogLevel(int level); /* exported by the library, missing from its headers */
}
} // namespace sentencepiece

struct dip_spm {
    sentencepiece::SentencePieceProcessor processor;
};

namespace
{

/* Only fatal lines; everything else comes back as a status and is told by dip_error. */
constexpr int fatal_log_level = 3;

/* Expectations are summed per worker and then added up, so the number of workers is part of the
 * arithmetic. A constant makes the model independent of the machine. */
constexpr int n_training_workers = 8;

/* Beyond this many captions a uniform sample of this size is trained on. */
constexpr int max_training_lines = 2000000;

dip_status out_of_memory(const char *what)
{
    return dip_fail(DIP_NOMEM, "no memory left while %s", what);
}

/* The library's messages begin with its source line and the failed condition in brackets. */
std::string reason(const sentencepiece::util::Status &status)
{
    std::string text = status.ToString();
    size_t bracket = text.rfind("] ");
    if (bracket != std::string::npos && text.find_first_not_of(' ', bracket + 2) != text.npos)
        text.erase(0, bracket + 2);
    while (!text.empty() && (text.back() == ' ' || text.back() == '.')) text.pop_back();
    return text;
}

bool copy_out(void **out, size_t *n_out, const std::string &bytes)
{
    char *copy = static_cast<char *>(std::malloc(bytes.size() + 1));
    if (copy == nullptr) return false;
    std::memcpy(copy, bytes.data(), bytes.size());
    copy[bytes.size()] = '\0';
    *out = copy;
    *n_out = bytes.size();
    return true;
}

class LineIterator : public sentencepiece::SentenceIterator
{
  public:
    explicit LineIterator(const dip_spm_train_options &options) : options_(options) { Next(); }
    bool done() const override { return done_; }
    const std::string &value() const override { return line_; }
    sentencepiece::util::Status status() const override { return {}; }
    int64_t n_lines() const { return n_lines_; }

    void Next() override
    {
        const char *line = nullptr;
        size_t n_bytes = 0;
        done_ = options_.next(options_.context, &line, &n_bytes) == 0;
        if (done_) return;
        line_.assign(line, n_bytes);
        for (char &c : line_)
            if (c == '\0') c = ' '; /* the trainer drops lines with a NUL */
        n_lines_++;
    }

  private:
    const dip_spm_train_options &options_;
    std::string line_;
    int64_t n_lines_ = 0;
    bool done_ = false;
};

std::string number(double value)
{
    std::ostringstream text;
    text.imbue(std::locale::classic());
    text << value;
    return text.str();
}

/* What a training came to; dip_fail is the calling thread's business. */
struct Outcome {
    dip_status status = DIP_OK;
    std::string sentence, model;
};

Outcome train(const dip_spm_train_options &options)
{
    Outcome outcome;
    LineIterator lines(options);
    if (lines.done()) {
        outcome.status = DIP_FORMAT;
        outcome.sentence = "there is no caption in it";
        return outcome;
    }
    const std::unordered_map<std::string, std::string> settings = {
        {"model_type", options.model_type},
        {"vocab_size", std::to_string(options.vocab_size)},
        {"character_coverage", number(options.character_coverage)},
        {"byte_fallback", options.byte_fallback ? "true" : "false"},
        {"pad_id", "0"},
        {"unk_id", "1"},
        {"eos_id", "2"},
        {"bos_id", "-1"},
        {"hard_vocab_limit", "false"},
        {"num_threads", std::to_string(n_training_workers)},
        {"input_sentence_size", std::to_string(max_training_lines)},
        {"shuffle_input_sentence", "true"},
        {"minloglevel", std::to_string(fatal_log_level)},
    };
    sentencepiece::SetRandomGeneratorSeed(
        static_cast<unsigned int>(options.seed ^ (options.seed >> 32)));
    auto status = sentencepiece::SentencePieceTrainer::Train(settings, &lines, &outcome.model);
    if (status.ok()) return outcome;

    outcome.status = DIP_FORMAT;
    outcome.sentence = reason(status);
    size_t at = outcome.sentence.find("required_chars");
    int asked = 0, needed = 0;
    if (at != std::string::npos && std::sscanf(outcome.sentence.c_str() + at,
                                               "required_chars. %d vs %d", &asked, &needed) == 2) {
        outcome.status = DIP_CONFIG;
        outcome.sentence = "vocab-size " + std::to_string(options.vocab_size) +
                           " is too small: its characters and the special pieces alone need " +
                           std::to_string(needed);
    } else if (outcome.sentence.find("sentences_.empty()") != std::string::npos) {
        outcome.sentence =
            "none of its " + std::to_string(lines.n_lines()) + " captions holds a usable character";
    }
    return outcome;
}

} // namespace

extern "C" dip_status dip_spm_open(dip_spm **spm, dip_spm_ids *ids, const void *model,
                                   size_t n_bytes, const char *name)
{
    *spm = nullptr;
    dip_spm *fresh = nullptr;
    try {
        sentencepiece::logging::SetMinLogLevel(fatal_log_level);
        fresh = new dip_spm;
        auto status = fresh->processor.LoadFromSerializedProto(
            absl::string_view(static_cast<const char *>(model), n_bytes));
        if (status.ok()) {
            *ids = {fresh->processor.pad_id(), fresh->processor.unk_id(), fresh->processor.bos_id(),
                    fresh->processor.eos_id()};
            *spm = fresh;
            return DIP_OK;
        }
        dip_fail(DIP_FORMAT, "%s is not a usable SentencePiece model: %s", name,
                 reason(status).c_str());
        delete fresh;
        return DIP_FORMAT;
    } catch (const std::bad_alloc &) {
        delete fresh;
        return out_of_memory("loading a SentencePiece model");
    } catch (const std::exception &error) {
        delete fresh;
        return dip_fail(DIP_FORMAT, "%s is not a usable SentencePiece model: %s", name,
                        error.what());
    }
}

extern "C" void dip_spm_close(dip_spm *spm)
{
    delete spm;
}

extern "C" int dip_spm_encode(const dip_spm *spm, int32_t *ids, int max_ids, const char *text,
                              size_t n_bytes, int *n_unknown)
{
    *n_unknown = 0;
    if (n_bytes == 0) return 0;
    try {
        std::vector<int> pieces;
        auto status = spm->processor.Encode(absl::string_view(text, n_bytes), &pieces);
        if (!status.ok()) return 0;
        int n_ids = 0;
        for (int piece : pieces) {
            if (n_ids == max_ids) break;
            if (spm->processor.IsControl(piece)) continue; /* text never makes a special id */
            *n_unknown += spm->processor.IsUnknown(piece);
            ids[n_ids++] = piece;
        }
        return n_ids;
    } catch (const std::exception &) {
        *n_unknown = 0;
        return 0;
    }
}

extern "C" dip_status dip_spm_decode(const dip_spm *spm, char **out, size_t *n_out,
                                     const int32_t *ids, int n_ids)
{
    *out = nullptr;
    try {
        std::string text;
        auto status = spm->processor.Decode(std::vector<int>(ids, ids + n_ids), &text);
        if (!status.ok())
            return dip_fail(DIP_FORMAT, "cannot decode %d ids: %s", n_ids, reason(status).c_str());
        void *copy = nullptr;
        if (!copy_out(&copy, n_out, text)) return out_of_memory("decoding ids");
        *out = static_cast<char *>(copy);
        return DIP_OK;
    } catch (const std::bad_alloc &) {
        return out_of_memory("decoding ids");
    } catch (const std::exception &error) {
        return dip_fail(DIP_FORMAT, "cannot decode %d ids: %s", n_ids, error.what());
    }
}

extern "C" const char *dip_spm_piece(const dip_spm *spm, int id)
{
    return spm->processor.IdToPiece(id).c_str();
}

extern "C" dip_status dip_spm_train(uint8_t **out, size_t *n_out,
                                    const dip_spm_train_options *options)
{
    /* The library's seed is a global and its generators are thread-local, seeded at first use: one
     * training at a time, each on a thread of its own, makes the seed mean something. */
    static std::mutex one_at_a_time;
    *out = nullptr;
    try {
        std::lock_guard<std::mutex> lock(one_at_a_time);
        Outcome outcome;
        std::thread worker([&outcome, options] {
            try {
                outcome = train(*options);
            } catch (const std::bad_alloc &) {
                outcome.status = DIP_NOMEM;
            } catch (const std::exception &) {
                outcome.status = DIP_FORMAT; /* and no words: copying them might throw again */
            }
        });
        worker.join();
        if (outcome.status == DIP_NOMEM) return out_of_memory("training a tokenizer");
        if (outcome.status != DIP_OK)
            return dip_fail(outcome.status, "%s", outcome.sentence.c_str());
        void *copy = nullptr;
        if (!copy_out(&copy, n_out, outcome.model)) return out_of_memory("training a tokenizer");
        *out = static_cast<uint8_t *>(copy);
        return DIP_OK;
    } catch (const std::exception &error) {
        return dip_fail(DIP_NOMEM, "cannot train a tokenizer: %s", error.what());
    }
}
