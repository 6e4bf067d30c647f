"""The page: reads reports and pictures, draws; decides nothing."""
