// Image in, class ids out, with ONNX Runtime's C++ API.
//
//   segment_ort MODEL.onnx INPUT.ppm MASK.pgm [HEIGHT WIDTH]
//
// INPUT.ppm: RGB at the network's size; decoding and resizing an image are not in C++ here, runner/predict.py --input does both.
// HEIGHT WIDTH: of the image it was made from; the mask comes back at that size.
#include <onnxruntime_cxx_api.h>

#include <cstdio>
#include <cstdlib>
#include <exception>

#include "image.h"

static void refuse_other_models(const Ort::Session& session) {
    const auto type = session.GetInputTypeInfo(0);
    const auto tensor = type.GetTensorTypeAndShapeInfo();
    const std::vector<int64_t> shape = tensor.GetShape();
    if (tensor.GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8 || shape.size() != 4 || shape[1] != model::kHeight ||
        shape[2] != model::kWidth || shape[3] != 3)
        throw std::runtime_error("not a deploy graph of this release: it must take uint8 (batch, height, width, 3)");
}

static Mask segment(const char* path, std::vector<uint8_t>& pixels, int height, int width) {
    Ort::Env env(ORT_LOGGING_LEVEL_ERROR, "segment");
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
    if (!__builtin_cpu_supports("avx512vnni") && !__builtin_cpu_supports("avxvnni"))
        options.AddConfigEntry("session.x64quantprecision", "1");  // 8-bit products saturate on this CPU: widen them
#endif
    Ort::Session session(env, path, options);
    refuse_other_models(session);
    const int64_t shape[] = {1, model::kHeight, model::kWidth, 3};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    Ort::Value image = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(), shape, 4);
    const char* inputs[] = {"image"};
    const char* outputs[] = {"mask"};
    auto answers = session.Run(Ort::RunOptions{nullptr}, inputs, &image, 1, outputs, 1);
    return restore(answers.front().GetTensorData<uint8_t>(), height, width);
}

int main(int count, char** words) try {
    if (count != 4 && count != 6) {
        std::fprintf(stderr, "usage: %s MODEL.onnx INPUT.ppm MASK.pgm [HEIGHT WIDTH]\n", words[0]);
        return 2;
    }
    const int height = count == 6 ? std::atoi(words[4]) : model::kHeight, width = count == 6 ? std::atoi(words[5]) : model::kWidth;
    if (height < 1 || width < 1) throw std::runtime_error("HEIGHT and WIDTH must be at least 1");
    std::vector<uint8_t> pixels = read_input(words[2]);
    write_mask(words[3], segment(words[1], pixels, height, width));
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
}
