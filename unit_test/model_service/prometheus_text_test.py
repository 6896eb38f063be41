"""What is counted is written as Prometheus reads it."""

import unittest

from model_service.observability import prometheus_text


class CounterTest(unittest.TestCase):
    def setUp(self) -> None:
        self.counter = prometheus_text.Counter(":requests", "model_name", "status")

    def test_each_combination_of_labels_is_counted_for_itself(self) -> None:
        for status in ("OK", "OK", "NOT_FOUND"):
            self.counter.count("M", status)
        self.assertEqual(
            list(self.counter.lines()),
            [
                "# TYPE :requests counter",
                ':requests{model_name="M",status="OK"} 2',
                ':requests{model_name="M",status="NOT_FOUND"} 1',
            ],
        )

    def test_what_would_end_a_label_is_escaped(self) -> None:
        self.counter.count('a"b\\c\nd', "OK")
        self.assertEqual(list(self.counter.lines())[1], r':requests{model_name="a\"b\\c\nd",status="OK"} 1')

    def test_made_up_names_share_a_series_in_the_end(self) -> None:
        """Or else whoever may send requests could fill the memory."""
        for number in range(prometheus_text.MAX_SERIES + 50):
            self.counter.count(f"made up {number}", "NOT_FOUND")
        self.counter.count("made up 0", "NOT_FOUND")
        lines = list(self.counter.lines())
        self.assertEqual(len(lines), 1 + prometheus_text.MAX_SERIES + 1)
        self.assertEqual(lines[-1], ':requests{model_name="(others)",status="NOT_FOUND"} 50')
        self.assertEqual(lines[1], ':requests{model_name="made up 0",status="NOT_FOUND"} 2')


class HistogramTest(unittest.TestCase):
    def test_each_bucket_counts_what_is_not_larger_than_its_limit(self) -> None:
        histogram = prometheus_text.Histogram("latency", [10, 32.4, 104.976], "API")
        for number in (1, 10, 11, 50.5, 1e6):
            histogram.observe(number, "Predict")
        self.assertEqual(
            list(histogram.lines()),
            [
                "# TYPE latency histogram",
                'latency_bucket{API="Predict",le="10"} 2',
                'latency_bucket{API="Predict",le="32.4"} 3',
                'latency_bucket{API="Predict",le="104.976"} 4',
                'latency_bucket{API="Predict",le="+Inf"} 5',
                'latency_sum{API="Predict"} 1000072.5',
                'latency_count{API="Predict"} 5',
            ],
        )


class SampleTest(unittest.TestCase):
    def test_a_number_without_labels_stands_alone(self) -> None:
        self.assertEqual(prometheus_text.sample("queue_length", 3), "queue_length 3")


if __name__ == "__main__":
    unittest.main()
