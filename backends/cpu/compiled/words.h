// Random words: out[k] is word k of a draw. Four words come from one evaluation of the generator.
// The slots are seed, stream, call, the address of a number that is added to call or 0, shard, out
// and the number of words.
typedef unsigned long long Word;

extern "C" void run(const Slot* a_) {
  const Word seed = a_[0].u, stream = a_[1].u, shard = a_[4].u;
  const Word call = a_[2].u + (a_[3].p ? *(const Word*)a_[3].p : 0);
  Word* out = (Word*)a_[5].p;
  const Word whole = a_[6].u / 4, rest = a_[6].u % 4;
  for (Word n = 0; n < whole; ++n, out += 4) {
    for (int word = 0; word < 4; ++word) {
      out[word] = philox4x64(seed, stream, n + 1, call, shard, 0, word);
    }
  }
  for (int word = 0; word < (int)rest; ++word) {
    out[word] = philox4x64(seed, stream, whole + 1, call, shard, 0, word);
  }
}
